"""The classes that the values of labels show: of class numbers, of masks, of values that JPEG or resizing changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.discovery.class_tables import ClassTable
from terrazzo.data.soft_labels import nearest_grey, solid_counts
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError, some
from terrazzo.system.terminal import Console
from terrazzo.transforms.formats.base import BACKGROUND
from terrazzo.transforms.label_files import label_parts
from terrazzo.transforms.labels import IGNORED, value_counts

FAR = 5  # distance between values that are grey levels rather than class numbers
BINARY = ("background", "foreground")
MOST_NUMBERS = 1024  # classes that are numbered without gaps
NO_DATA = (65535, 2**31 - 1)  # the largest values of their types


@dataclass
class LabelFacts:
    """Entries of the short form's `data`, a comment for each on how it was found, and the file that names classes."""

    entries: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    named_in: Path | None = None
    notes: list[str] = field(default_factory=list)  # on what contradicts itself

    def add(self, key: str, value: Any, reason: str = "") -> None:
        """Add an entry and its comment."""
        self.entries[key] = value
        self.reasons[key] = reason

    def dataset_options(self) -> dict[str, Any]:
        """The entries as arguments of a data set."""
        meta = {key: self.entries[key] for key in ("classes", "palette") if key in self.entries}
        return {"metainfo": meta, **{key: value for key, value in self.entries.items() if key not in meta}}


@dataclass
class FoundValues:
    """The values of many labels with their number of pixels, and of those inside regions of one value."""

    files: int
    pixels: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    zero_is_no_data: bool = False

    @property
    def no_data(self) -> list[int]:
        """The values without data: the largest of their types, and 0 where files say so and more than two remain."""
        largest = [value for value in NO_DATA if value in self.pixels]
        classes = set(self.pixels) - {*largest, IGNORED}
        return [0, *largest] if self.zero_is_no_data and 0 in classes and len(classes) > 2 else largest


def found_values(paths: Sequence[Path], console: Console | None) -> FoundValues:
    """The values of label files that hold class numbers."""
    found = FoundValues(len(paths))

    def count(path: Path) -> tuple[Counter[int], Counter[int], bool]:
        pixels, solid, zero_is_no_data = Counter[int](), Counter[int](), False
        for label, has_zero in label_parts(path):
            counts = value_counts(label)
            pixels.update(counts)
            solid.update(solid_counts(label, counts))
            zero_is_no_data |= has_zero
        return pixels, solid, zero_is_no_data

    for pixels, solid, zero_is_no_data in in_threads(count, paths, "reading labels", console):
        found.pixels.update(pixels)
        found.solid.update(solid)
        found.zero_is_no_data |= zero_is_no_data
    return found


def two_classes(names: Sequence[str]) -> list[str]:
    """The names of the classes of a mask: one name is that of the foreground; more than two are ignored."""
    if len(names) == 1 and names[0].lower() not in BACKGROUND:
        return [BINARY[0], *names]
    return list(names) if len(names) == 2 else list(BINARY)


def index_facts(found: FoundValues, names: Sequence[str], source: str) -> LabelFacts:
    """The classes of labels of class numbers, from the values in use and a list of names if there is one.

    Raises UserError where all pixels are of one value, and for values that are not classes.
    """
    pixels, facts = found.pixels, LabelFacts()
    values = sorted(value for value in pixels if value != IGNORED)
    if not values:
        raise UserError("every pixel of the labels has the value 255, which means 'ignored'")
    if len(pixels) == 1:
        raise UserError(f"every pixel of {found.files} labels has the value {values[0]}: there is nothing to learn")

    # masks, of 0 and 255 or of any value and of no data
    if set(pixels) <= {0, IGNORED}:
        facts.add("classes", two_classes(names), "binary: the labels hold only 0 and 255")
        facts.add("label_map", {IGNORED: 1}, "255 is the second class, and nothing is ignored")
        return facts
    if len(values) == 1:
        facts.add("classes", two_classes(names), f"binary: the labels hold only {values[0]} and no data (255)")
        label_map = {IGNORED: 0, **({} if values == [1] else {values[0]: 1})}
        facts.add("label_map", label_map, "no data is the first class, as there is no other value")
        return facts

    # values without a meaning
    if found.no_data:
        is_declared = 0 in found.no_data
        reason = "the files declare 0 as no data" if is_declared else "the largest value of its type: taken as no data"
        facts.add("ignore", found.no_data, reason)
    values = [value for value in values if value not in found.no_data]

    number_classes(facts, values, two_classes(names) if len(names) == 1 else names, source, found.files)
    if found.zero_is_no_data and 0 in values:
        facts.reasons["classes"] += "; the files declare 0 as no data, but it is taken as the background"
    if IGNORED in pixels:
        share = 100 * pixels[IGNORED] / sum(pixels.values())
        facts.reasons["classes"] += f"; 255 ({share:.2g}% of the pixels) is ignored"
    return facts


def number_classes(facts: LabelFacts, values: Sequence[int], names: Sequence[str], source: str, files: int) -> None:
    """Add the classes of values in use: numbers of named classes, numbers without names, or grey levels."""
    found = f"{len(values)} values in {files} labels"
    if names:
        one_more = values[0] >= 1 and values[-1] == len(names)
        facts.add("classes", list(names), f"from {source}; {found}: {spans(values)}")
        outside = [value for value in values if value >= len(names) + one_more]
        if one_more:
            facts.add("reduce_zero_label", True, f"the values begin with 1, and {values[-1]} is the number of classes")
        elif values[-1] == len(names) and values[0] == 0 and len(values) == len(names) + 1:
            facts.reasons["classes"] += f"; {values[-1]} has no name: if the names begin with value 1, it should be "
            facts.reasons["classes"] += "`reduce_zero_label: true` instead of `ignore`"
        if outside:
            ignored = sorted({*facts.entries.get("ignore", ()), *outside})
            facts.add("ignore", ignored, f"no name for {'it' if len(outside) == 1 else 'them'}")
    elif values == [0, 1]:
        facts.add("classes", list(BINARY), "binary: the labels hold 0 and 1; rename them")
    elif len(values) > MOST_NUMBERS:
        raise UserError(
            f"{files} labels hold {len(values)} values, up to {values[-1]}: these are numbers of single things or "
            "measurements rather than classes"
        )
    elif min(np.diff(values)) >= FAR or values[-1] > MOST_NUMBERS:
        facts.add("classes", [f"value_{value}" for value in values], f"{found}, far apart; rename them")
        facts.add("label_map", {value: index for index, value in enumerate(values)}, "to class numbers")
    else:
        first = int(values[0] == 1)
        names = [f"class_{value}" for value in range(first, values[-1] + 1)]
        facts.add("classes", names, f"{found}: {spans(values)}; rename them")
        if first:
            facts.add("reduce_zero_label", True, "the values begin with 1, and 0 is not a class")


def valued_facts(found: FoundValues, table: ClassTable) -> LabelFacts:
    """The classes of labels whose values a table names; one called 255 is ignored."""
    facts = LabelFacts()
    named = {value: name for value, name in zip(table.values, table.names, strict=True) if value != IGNORED}
    outside = sorted(set(found.pixels) - set(named) - {IGNORED})
    facts.add(
        "classes",
        list(named.values()),
        f"from {table.path.name}, by its values; {found.files} labels hold {spans(sorted(found.pixels))}",
    )
    facts.add("label_map", {value: index for index, value in enumerate(named)}, f"the values in {table.path.name}")
    if outside:
        facts.add("ignore", outside, f"no name for {'it' if len(outside) == 1 else 'them'}")
    return facts


def spans(values: Sequence[int]) -> str:
    """Sorted whole numbers as `0-11, 14`."""
    numbered = groupby(enumerate(values), lambda pair: pair[1] - pair[0])
    runs = [[value for _, value in run] for _, run in numbered]
    return some((f"{run[0]}-{run[-1]}" if len(run) > 1 else run[0] for run in runs), 8)


def black_and_white(example: Path, pixels: Mapping[int, int]) -> list[int]:
    """The values of black and white masks saved as JPEG. Raises UserError for JPEG labels of more values."""
    near = sum(count for value, count in pixels.items() if value < 32 or value > 223)
    if near < 0.95 * sum(pixels.values()) or max(pixels) < 200:
        raise UserError(f"{example}: JPEG has changed the values of the labels; save them as PNG")
    return [0, IGNORED]


def soft_facts(values: Sequence[int], names: Sequence[str], source: str, found: FoundValues) -> LabelFacts:
    """The classes of masks whose values JPEG or smooth resizing has changed. Raises UserError for other names."""
    if len(values) == 2:
        classes = two_classes(names)
    else:
        classes = list(names) or [BINARY[0] if value == 0 else f"value_{value}" for value in values]
    if len(classes) != len(values):
        raise UserError(
            f"{source} names {len(classes)} classes, but the {len(found.pixels)} values of the labels lie around "
            f"{len(values)}, {some(values)}: JPEG or smooth resizing has changed them; save the labels as PNG again"
        )
    facts = LabelFacts()
    facts.add(
        "label_format",
        nearest_grey(values),
        f"the labels hold {len(found.pixels)} values, as JPEG or smooth resizing has changed them: each pixel takes "
        f"the nearest of {some(values)}",
    )
    kind = "binary: dark and light" if len(values) == 2 else f"{len(values)} values"
    facts.add("classes", classes, f"{kind}; " + (f"from {source}" if names else "rename them"))
    return facts
