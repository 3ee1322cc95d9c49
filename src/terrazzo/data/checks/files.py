"""Findings on files: damaged ones, sizes, and labels that are not class maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from terrazzo.data.checks.finding import Finding, some, such_as
from terrazzo.data.checks.survey import DatasetSurvey, Entry, SplitSurvey

USUAL_SHARE = 0.8  # of the images that have one size: from here on another size is odd
SMALLEST_EDGE = 16  # pixels
LARGEST_ASPECT = 8.0  # longer edge over shorter one


def file_findings(split: SplitSurvey) -> Iterator[Finding]:
    """Yield the mistakes in the files of a split, whatever its labels mean."""
    for part in split.parts:
        yield from unreadable(split, part)
        yield from other_sizes(split, part)
        yield from colour_masks(split, part)
        yield from lossy_masks(split, part)
    yield from odd_sizes(split)


def unreadable(split: SplitSurvey, part: DatasetSurvey) -> Iterator[Finding]:
    for what in ("image", "label"):
        errors: dict[Path, tuple[Path, str]] = {}  # file -> image of the pair, what is wrong
        for entry in part.entries:
            facts, path = (entry.seen, entry.image) if what == "image" else (entry.marked, entry.label)
            if facts is not None and facts.error and path is not None:
                errors[path] = (entry.image, facts.error)
        if errors:
            first = next(iter(errors.values()))[1]
            more = f" ({len(errors)} of {len(part.entries)} {what}s cannot be read)" if len(errors) > 1 else ""
            changes = part.without(image for image, _ in errors.values())
            yield Finding(
                "unreadable",
                "error",
                split.name,
                first + more,
                "replace or remove the files",
                files=tuple(errors),
                where=part.where,
                changes=changes,
            )


def other_sizes(split: SplitSurvey, part: DatasetSurvey) -> Iterator[Finding]:
    wrong = [entry for entry in part.entries if size_differs(entry)]
    if not wrong:
        return
    first = wrong[0]
    assert first.seen is not None and first.marked is not None
    sizes = [f"{shape[1]}x{shape[0]}" for shape in (first.marked.shape, first.seen.shape)]
    text = f"{first.label} is {sizes[0]} but its image {first.image} is {sizes[1]} (width x height)"
    if len(wrong) > 1:
        text += f"; {len(wrong)} of {len(part.entries)} labels have another size than their image"
    if first.marked.shape[:2] == first.seen.shape[1::-1]:
        text += "; the image may be turned by its EXIF orientation: see color_type `color_ignore_orientation`"
    yield Finding(
        "size-mismatch",
        "error",
        split.name,
        text,
        "make the labels again from the images as they are",
        files=tuple(entry.label for entry in wrong if entry.label is not None),
        where=part.where,
        changes=part.without(entry.image for entry in wrong),
    )


def size_differs(entry: Entry) -> bool:
    """Return True if a label does not cover its image."""
    if entry.seen is None or entry.marked is None or not entry.seen.shape or not entry.marked.shape:
        return False
    return entry.seen.shape[: len(entry.marked.shape)] != entry.marked.shape


def colour_masks(split: SplitSurvey, part: DatasetSurvey) -> Iterator[Finding]:
    coloured = [entry for entry in part.entries if entry.marked is not None and entry.marked.colours]
    masks = [entry for entry in coloured if entry.marked is not None and not entry.marked.lossy]
    if not masks:
        return
    files = tuple(entry.label for entry in masks if entry.label is not None)
    colours: Counter[tuple[int, ...]] = Counter()
    for entry in masks:
        assert entry.marked is not None
        colours.update(entry.marked.colours)
    palette = {tuple(colour) for colour in part.dataset.palette}
    known = [colour for colour in colours if colour in palette]
    listed = some((list(colour) for colour, _ in colours.most_common()), 4)
    more = f", and so are {len(files) - 1} more labels" if len(files) > 1 else ""
    every = all(entry.marked is not None and entry.marked.colours for entry in part.entries)
    yield Finding(
        "rgb-mask",
        "error",
        split.name,
        f"the label {files[0]} is a colour image{more}; labels are class indices in one channel: convert them, or name "
        f"the classes' colours in `palette` and set `label_format: rgb`. Colours: {listed}; {len(known)} of "
        f"{len(colours)} are in the palette",
        "name the classes' colours in `palette` and set `label_format: rgb`",
        files=files,
        where=part.where,
        changes={"label_format": "rgb"} if every and len(known) == len(colours) else {},
    )


def lossy_masks(split: SplitSurvey, part: DatasetSurvey) -> Iterator[Finding]:
    masks = [entry for entry in part.entries if entry.marked is not None and entry.marked.lossy]
    files = tuple(entry.label for entry in masks if entry.label is not None)
    if files:
        values = sorted({value for entry in masks if entry.marked is not None for value in entry.marked.counts})
        yield Finding(
            "jpeg-mask",
            "error",
            split.name,
            f"labels stored as JPEG, {such_as(files)}: compression has changed their values"
            + (f" ({len(values)} different ones, such as {some(values)})" if values else "")
            + "; save labels as PNG",
            "export the labels again as PNG; changes by compression cannot be distinguished from what was drawn",
            values=tuple(values),
            files=files,
            where=part.where,
        )


def odd_sizes(split: SplitSurvey) -> Iterator[Finding]:
    """Advice on images that differ from nearly all the others, on tiny ones, and on narrow strips."""
    shapes = {entry.image: entry.seen.shape[:2] for entry in split.entries if entry.seen and len(entry.seen.shape) == 3}
    if not shapes:
        return
    (usual, count), *_ = Counter(shapes.values()).most_common(1)
    has_usual = count >= USUAL_SHARE * len(shapes)
    odd = [path for path, shape in shapes.items() if is_extreme(shape) or (has_usual and shape != usual)]
    if odd:
        listed = some((f"{path} ({shapes[path][1]}x{shapes[path][0]})" for path in odd), 3)
        common = f"; the others are {usual[1]}x{usual[0]}" if has_usual and shapes[odd[0]] != usual else ""
        yield Finding(
            "odd-size",
            "advice",
            split.name,
            f"{len(odd)} of {len(shapes)} images are of an odd size: {listed}{common}",
            "check that they belong here",
            files=tuple(odd),
            where=split.parts[0].where,
        )


def is_extreme(shape: tuple[int, ...]) -> bool:
    return min(shape) < SMALLEST_EDGE or max(shape) > LARGEST_ASPECT * min(shape)
