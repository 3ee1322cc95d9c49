"""Findings on label values, compared with those that the classes allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.data.checks.finding import Finding, percent, such_as
from terrazzo.data.checks.survey import DatasetSurvey, SplitSurvey
from terrazzo.data.soft_labels import nearest_changes, real_values
from terrazzo.errors import some

IGNORED = 255
MOST_VALUES = 32  # outside the classes that a repair ignores; more are not a few stray labels
MANY_VALUES = 16  # values outside the classes from which on they look like those of a compressed or smoothed mask
FEW_PIXELS = 0.2  # the share of the pixels that such values have at most


@dataclass
class Values:
    """The label values of a part: as stored, as mapped, and in which files."""

    part: DatasetSurvey
    stored: Counter[int]
    mapped: dict[int, int]  # stored value -> class, 255: ignored
    files: dict[int, list[Path]]  # stored value -> label files
    sets: list[tuple[Path, Set[int]]]  # label file, its stored values
    solid: Counter[int]  # stored value -> pixels inside regions of it

    @property
    def classes(self) -> int:
        return len(self.part.classes)

    @property
    def pixels(self) -> int:
        return sum(self.stored.values())

    def outside(self) -> list[int]:
        """Stored values that become neither a class nor 255."""
        return sorted(v for v, new in self.mapped.items() if self.classes and self.classes <= new != IGNORED)

    def pixels_of(self, values: Iterable[int]) -> int:
        return sum(self.stored[value] for value in values)

    def files_with(self, values: Iterable[int]) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for value in values for path in self.files[value]))

    def finding(self, kind: str, text: str, values: Sequence[int], files: Sequence[Path], **changes: Any) -> Finding:
        """Return a finding on values, with changes of the settings that map them."""
        located = {self.part.key_of(key): value for key, value in changes.items()}
        return self.part.finding(kind, text, files=files, values=tuple(values), changes=located)


def gather(part: DatasetSurvey) -> Values:
    """The values of all labels that could be read as class indices without loss."""
    stored: Counter[int] = Counter()
    files: dict[int, list[Path]] = {}
    sets: list[tuple[Path, Set[int]]] = []
    solid: Counter[int] = Counter()
    for entry in part.entries:
        if entry.label is None or entry.marked.lossy or not entry.marked.counts:
            continue
        stored.update(entry.marked.counts)
        solid.update(entry.marked.solid)
        sets.append((entry.label, entry.marked.counts.keys()))
        for value in entry.marked.counts:
            files.setdefault(value, []).append(entry.label)
    mapped = dict(zip(stored, part.mapping.classes_of(list(stored)), strict=True))
    return Values(part, stored, mapped, files, sets, solid)


def value_findings(split: SplitSurvey, in_use: Set[int]) -> Iterator[Finding]:
    """Yield the mistakes in the values of a split; `in_use` are the stored values of all splits."""
    for part in split.parts:
        values = gather(part)
        if not values.stored:
            continue
        explained = binary_255(values) or needless_reduce(values, in_use) or shifted(values) or smoothed(values)
        found = explained or outside_classes(values)
        if found is not None:
            yield found
        if explained is None:
            yield from ignored(values)
            yield from declared_no_data(values)


def binary_255(values: Values) -> Finding | None:
    """Masks of 0 and 255 where there are two classes; some of the files may have 0 and 1."""
    white = [path for path, inside in values.sets if IGNORED in inside]
    mixed = any({1, IGNORED} <= inside for _, inside in values.sets)
    if values.classes not in (0, 2) or not white or mixed or not set(values.stored) <= {0, 1, IGNORED}:
        return None
    if 0 not in values.stored or values.mapped[IGNORED] != IGNORED:
        return None
    foreground = f"class '{values.part.classes[1]}'" if values.classes else "the second class"
    text = (
        f"the {values.part.split} labels hold 0 and 255 ({such_as(white)}), and 255 means 'ignored': {foreground} "
        f"would never be learnt from them ({percent(values.stored[IGNORED], values.pixels)} of the pixels)"
    )
    label_map = {**(values.part.mapping.label_map or {}), IGNORED: 1}
    return values.finding("binary-255", text, [0, IGNORED], white, label_map=label_map)


def needless_reduce(values: Values, in_use: Set[int]) -> Finding | None:
    """reduce_zero_label where 0 is a class: nearly all of 0 to K-1 are in use, and nothing is left for the last one."""
    size = values.classes
    if not size or not values.part.mapping.reduce_zero_label or 0 not in values.stored:
        return None
    used = {value for value in in_use if value != IGNORED}
    if max(used) != size - 1 or len(used) < 0.8 * size or values.part.mapping.label_map:
        return None
    text = (
        f"reduce_zero_label is on, but the labels hold 0 to {size - 1}, all of the {size} classes: label 0 "
        f"('{values.part.classes[0]}', {percent(values.stored[0], values.pixels)} of the pixels) would be ignored, "
        f"every other label taken for the class before it, and nothing left for '{values.part.classes[-1]}'"
    )
    return values.finding("needless-reduce-zero-label", text, [0], values.files[0], reduce_zero_label=False)


def shifted(values: Values) -> Finding | None:
    """Values 1 to K for K classes, or (where the number of classes is not known) no label 0."""
    new = {value for value in values.mapped.values() if value != IGNORED}
    size = values.classes or max(new, default=0)
    if not new or min(new) == 0 or max(new) != size or (min(new) > 1 and not values.classes):
        return None
    mapping, files = values.part.mapping, values.files_with(values.mapped)
    plain = not mapping.reduce_zero_label and not mapping.label_map
    changes = {"reduce_zero_label": True} if plain else {}
    last = f", {size} is outside the {size} classes 0-{size - 1}" if values.classes else ""
    text = (
        f"the {values.part.split} labels are shifted by one: they hold {some(sorted(new), 8)}, but never 0{last} "
        f"({such_as(files)}). reduce_zero_label takes one off each"
    )
    return values.finding("shifted-labels", text, sorted(values.stored), files, **changes)


def smoothed(values: Values) -> Finding | None:
    """Values around a few others, or outside the classes on few pixels, as JPEG or smooth resizing makes them."""
    real = real_values(values.stored, values.solid)
    if real:
        others = sorted(value for value in values.stored if value not in real)
        files = values.files_with(others)
        text = (
            f"the {values.part.split} labels hold {len(values.stored)} values around {some(real, 8)} "
            f"({such_as(files)}): the masks were saved as JPEG once, or resized smoothly, which changes values; save "
            "labels as PNG and resize them by nearest neighbour, or let each pixel take the nearest of these"
        )
        return values.finding("jpeg-mask", text, others, files, **nearest_changes(real, values.part.classes))
    outside = values.outside()
    pixels = values.pixels_of(outside)
    if len(outside) < max(MANY_VALUES, values.classes) or max(outside) > 255 or pixels > FEW_PIXELS * values.pixels:
        return None
    files = values.files_with(outside)
    text = (
        f"labels with {len(outside)} values between and beyond the {values.classes} classes, such as {some(outside)} "
        f"({percent(pixels, values.pixels)} of the pixels, in {such_as(files)}): the masks were saved as JPEG once, or "
        "resized smoothly, which changes values; save labels as PNG and resize them by nearest neighbour"
    )
    return values.finding("jpeg-mask", text, outside, files)


def outside_classes(values: Values) -> Finding | None:
    outside = values.outside()
    if not outside:
        return None

    # the labels concerned
    files, size, first, mapping = values.files_with(outside), values.classes, outside[0], values.part.mapping
    pixels = values.pixels_of(outside)
    if len(files) == 1:
        marked = next(entry.marked for entry in values.part.entries if entry.label == files[0])
        share = percent(pixels, sum(marked.counts.values())) + " of its pixels"
        subject = f"{files[0]} has"
    else:
        share = percent(pixels, values.pixels) + " of all pixels"
        subject = f"{len(files)} labels, such as {files[0]}, have"

    # the repair, and a guess at the cause; where a class has no pixels, these may be its own
    no_class_missing = set(range(size)) <= set(values.mapped.values())
    changes: dict[str, Any] = {"ignore": sorted({*mapping.ignore, *outside})} if no_class_missing else {}
    hint = ""
    ranked = sorted(values.stored)
    if len(ranked) == size and not mapping.label_map and values.stored[first] > 0.01 * values.pixels:
        changes = {"label_map": {value: index for index, value in enumerate(ranked) if value != index}}
    elif len(outside) > MOST_VALUES:
        wrong = set(files)
        changes = values.part.without(entry.image for entry in values.part.entries if entry.label in wrong)
        hint = "; so many values may be numbers of single things, or of another data set's classes"
    elif outside == [size] and not mapping.reduce_zero_label:
        hint = f"; 0 to {size} are {size + 1} values: if 0 means 'no class', set `reduce_zero_label: true`"
    text = (
        f"{subject} label values outside the {size} classes 0-{size - 1}: {some(outside, 8)} ({share}). Map them with "
        f"`label_map: {{{first}: CLASS}}`, skip them with `ignore: [{first}]`, or add the missing classes{hint}"
    )
    return values.finding("value-outside-classes", text, outside, files, **changes)


def ignored(values: Values) -> Iterator[Finding]:
    """A split, or many of its pixels or files, where nothing counts."""
    lost = sorted(value for value, new in values.mapped.items() if new == IGNORED)
    counted = values.pixels - values.pixels_of(lost)
    blank = [path for path, inside in values.sets if all(values.mapped[value] == IGNORED for value in inside)]
    if not counted:
        text = (
            f"every pixel of the {values.part.split} labels is ignored ({such_as(blank)}; stored values "
            f"{some(lost, 8)}): look at reduce_zero_label, label_map and ignore"
        )
        yield values.finding("all-ignored", text, lost, blank, **give_meaning(values))
    elif counted < 0.5 * values.pixels or len(blank) > 0.1 * len(values.sets):
        share = percent(values.pixels - counted, values.pixels)
        files = f", and all pixels in {such_as(blank)}" if blank else ""
        text = f"{share} of the pixels of the {values.part.split} labels are ignored{files}"
        yield values.finding("mostly-ignored", text, lost, blank)


def declared_no_data(values: Values) -> Iterator[Finding]:
    """Labels that declare 0 to be no data, which is a class here."""
    files = [entry.label for entry in values.part.entries if entry.label and entry.marked.zero_is_no_data]
    if files and values.mapped.get(0, IGNORED) != IGNORED:
        name = f"class '{values.part.classes[values.mapped[0]]}'" if values.classes > values.mapped[0] else "a class"
        text = (
            f"labels declare 0 as no data, but it is taken for {name} ({such_as(files)}); if it is none: "
            "`ignore: [0]`, or `reduce_zero_label: true`"
        )
        yield values.finding("declared-no-data", text, [0], files)


def give_meaning(values: Values) -> dict[str, Any]:
    """The change that lets stored values count again, where settings alone ignore them."""
    mapping = values.part.mapping
    real = {value for value in values.stored if value != IGNORED}
    if not real or max(real) >= values.classes:
        return {}
    kept = [value for value in mapping.ignore if value not in real]
    return (
        ({"reduce_zero_label": False} if mapping.reduce_zero_label else {})
        | ({"ignore": kept} if mapping.ignore else {})
        | ({"label_map": {}} if mapping.label_map else {})
    )
