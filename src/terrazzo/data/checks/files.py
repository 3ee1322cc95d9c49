"""Findings on files: damaged ones, sizes, and labels that are not class maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from terrazzo.data.checks.finding import Finding, such_as
from terrazzo.data.checks.survey import DatasetSurvey, Entry, SplitSurvey
from terrazzo.data.soft_labels import nearest_changes, real_values
from terrazzo.errors import some

USUAL_SHARE = 0.8  # of the images that have one size: from here on another size is odd
SMALLEST_EDGE = 16  # pixels
LARGEST_ASPECT = 8.0  # longer edge over shorter one


def file_findings(split: SplitSurvey) -> Iterator[Finding]:
    """Yield the mistakes in the files of a split, whatever its labels mean."""
    for part in split.parts:
        yield from unreadable(part)
        yield from other_sizes(part)
        yield from colour_masks(part)
        yield from lossy_masks(part)
        yield from turned_images(part)
        yield from unused_bands(part)
    yield from odd_sizes(split)


def unreadable(part: DatasetSurvey) -> Iterator[Finding]:
    for what in ("image", "label"):
        errors: dict[Path, tuple[Path, str]] = {}  # file -> image of the pair, what is wrong
        for entry in part.entries:
            error, path = (entry.seen.error, entry.image) if what == "image" else (entry.marked.error, entry.label)
            if error and path is not None:
                errors[path] = (entry.image, error)
        if errors:
            first = next(iter(errors.values()))[1]
            more = f" ({len(errors)} of {len(part.entries)} {what}s cannot be read)" if len(errors) > 1 else ""
            changes = part.without(image for image, _ in errors.values())
            yield part.finding("unreadable", first + more, files=errors, changes=changes)


def other_sizes(part: DatasetSurvey) -> Iterator[Finding]:
    wrong = [entry for entry in part.entries if size_differs(entry)]
    if not wrong:
        return
    first = wrong[0]
    sizes = [f"{shape[1]}x{shape[0]}" for shape in (first.marked.shape, first.seen.shape)]
    text = f"{first.label} is {sizes[0]} but its image {first.image} is {sizes[1]} (width x height)"
    if len(wrong) > 1:
        text += f"; {len(wrong)} of {len(part.entries)} labels have another size than their image"
    if first.marked.shape[:2] == first.seen.shape[1::-1]:
        text += "; the image may be turned by its EXIF orientation: see color_type `color_ignore_orientation`"
    changes = part.without(entry.image for entry in wrong)
    yield part.finding("size-mismatch", text, files=[entry.label for entry in wrong], changes=changes)


def size_differs(entry: Entry) -> bool:
    """Return True if a label does not cover its image."""
    seen, marked = entry.seen.shape, entry.marked.shape
    return bool(seen and marked) and seen[: len(marked)] != marked


def colour_masks(part: DatasetSurvey) -> Iterator[Finding]:
    masks = [entry for entry in part.entries if entry.marked.colours and not entry.marked.lossy]
    if not masks:
        return
    colours: Counter[tuple[int, ...]] = Counter()
    for entry in masks:
        colours.update(entry.marked.colours)
    palette = {tuple(colour) for colour in part.dataset.palette}
    known = [colour for colour in colours if colour in palette]
    listed = some((list(colour) for colour, _ in colours.most_common()), 4)
    more = f", and so are {len(masks) - 1} more labels" if len(masks) > 1 else ""
    message = (
        f"the label {masks[0].label} is a colour image{more}; labels are class indices in one channel: convert them, "
        f"or name the classes' colours in `palette` and set `label_format: rgb`. Colours: {listed}; {len(known)} of "
        f"{len(colours)} are in the palette"
    )
    every = all(entry.marked.colours for entry in part.entries)
    changes = {"label_format": "rgb"} if every and len(known) == len(colours) else {}
    yield part.finding("rgb-mask", message, files=[entry.label for entry in masks], changes=changes)


def lossy_masks(part: DatasetSurvey) -> Iterator[Finding]:
    masks = [entry for entry in part.entries if entry.marked.lossy]
    files = [entry.label for entry in masks if entry.label is not None]
    if files:
        values = sorted({value for entry in masks for value in entry.marked.counts})
        different = f" ({len(values)} different ones, such as {some(values)})" if values else ""
        message = (
            f"labels stored as JPEG, in {such_as(files)}: compression has changed their values{different}; save labels "
            "as PNG"
        )
        real = real_values(total(entry.marked.counts for entry in masks), total(entry.marked.solid for entry in masks))
        changes = nearest_changes(real, part.classes)
        yield part.finding("jpeg-mask", message, files=files, values=tuple(values), changes=changes)


def total(counts: Iterable[Mapping[int, int]]) -> Counter[int]:
    """The sum of several counts."""
    added: Counter[int] = Counter()
    for one in counts:
        added.update(one)
    return added


def turned_images(part: DatasetSurvey) -> Iterator[Finding]:
    """Advice on images that EXIF turns while their labels have no such entry, unless sizes show that this is right."""
    turned = [
        entry
        for entry in part.entries
        if entry.seen.orientation != 1 and entry.label is not None and entry.marked.orientation == 1
    ]
    sideways = [entry for entry in turned if entry.seen.orientation >= 5 and entry.seen.shape[0] != entry.seen.shape[1]]
    if not turned or sideways:  # the size of a label shows which way it was drawn
        return
    files = [entry.image for entry in turned]
    message = (
        f"EXIF turns {len(files)} of {len(part.entries)} images as they are read ({such_as(files)}), but not their "
        "labels: where these were drawn on the images as stored, they do not fit"
    )
    yield part.finding("exif-orientation", message, files=files)


def unused_bands(part: DatasetSurvey) -> Iterator[Finding]:
    files = [entry.image for entry in part.entries if entry.seen.unused_band]
    if files:
        message = (
            f"{len(files)} images have a fourth band, which is not read ({such_as(files)}); all four: "
            "`bands: [1, 2, 3, 4]`"
        )
        yield part.finding("unused-band", message, files=files)


def odd_sizes(split: SplitSurvey) -> Iterator[Finding]:
    """Advice on images that differ from nearly all the others, on tiny ones, and on narrow strips."""
    shapes = {entry.image: entry.seen.shape[:2] for entry in split.entries if len(entry.seen.shape) == 3}
    if not shapes:
        return
    (usual, count), *_ = Counter(shapes.values()).most_common(1)
    has_usual = count >= USUAL_SHARE * len(shapes)
    odd = [path for path, shape in shapes.items() if is_extreme(shape) or (has_usual and shape != usual)]
    if odd:
        listed = some((f"{path} ({shapes[path][1]}x{shapes[path][0]})" for path in odd), 3)
        common = f"; the others are {usual[1]}x{usual[0]}" if has_usual and shapes[odd[0]] != usual else ""
        message = f"{len(odd)} of {len(shapes)} images are of an odd size: {listed}{common}"
        yield split.parts[0].finding("odd-size", message, files=odd)


def is_extreme(shape: tuple[int, ...]) -> bool:
    return min(shape) < SMALLEST_EDGE or max(shape) > LARGEST_ASPECT * min(shape)
