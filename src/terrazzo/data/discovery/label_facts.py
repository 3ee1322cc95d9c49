"""The classes of a data set without a description, from its label files: names, colours, ignored and binary values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from terrazzo.data.discovery.class_tables import ClassTable, class_tables, contradictions
from terrazzo.data.discovery.layouts import format_name, section_pairs
from terrazzo.data.pairs import PairingError
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError, some
from terrazzo.system.arithmetic import ceil_div
from terrazzo.transforms.decode import decode_image, read_bytes, read_label
from terrazzo.transforms.formats.base import LABEL_FORMATS, with_background
from terrazzo.transforms.formats.class_masks import ClassMasks
from terrazzo.transforms.formats.tables import LABEL_MAP
from terrazzo.transforms.labels import IGNORED, value_counts

MOST_FILES = 1000  # label files whose values are read
MOST_COLOURS = 64
LOSSY = (".jpg", ".jpeg")
RARE = 1e-3  # share of the pixels below which a colour is an artefact of an edge between two others
FAR = 5  # distance between values that are grey levels rather than class numbers
BINARY = ("background", "foreground")


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


def label_facts(root: Path, sections: Sequence[Mapping[str, Any]], console: Console | None = None) -> LabelFacts:
    """The classes of data sets below `root`, from their labels and the files near them that name classes.

    Raises UserError for images without labels, and for labels that do not show what the classes are.
    """
    folder, name = label_folder(sections[0]), format_name(sections[0])
    paths = label_files(sections)
    folder = folder if folder.exists() or not paths else paths[0].parent  # of several folders, the first one
    if name == "class_masks":
        return class_mask_facts(folder, sections[0]["label_format"])
    if name and LABEL_FORMATS.get(name).names_classes:
        return named_facts(name, root, folder, paths)
    if not paths:
        raise UserError(f"{folder} holds no label")
    return picture_facts(root, folder, paths, console)


def encoded_label_facts(root: Path, sections: Sequence[Mapping[str, Any]]) -> LabelFacts | None:
    """The classes of labels that cannot be read without them (outlines, colours); None for class numbers."""
    folder, name = label_folder(sections[0]), format_name(sections[0])
    try:
        paths = label_files(sections, strict=False)
    except PairingError:
        return None
    if name == "class_masks":
        return class_mask_facts(folder, sections[0]["label_format"])
    if name and LABEL_FORMATS.get(name).names_classes:
        return named_facts(name, root, folder, paths)
    try:
        return colour_facts(root, folder, sampled(paths), None) if has_colours(paths) else None
    except (UserError, OSError):  # a damaged file or too many colours: whoever reads every file reports it
        return None


def label_folder(section: Mapping[str, Any]) -> Path:
    """The folder (or the one file) of a section's labels."""
    return Path(section["data_root"]) / (section.get("data_prefix") or {}).get("seg_map_path", "")


def label_files(sections: Sequence[Mapping[str, Any]], *, strict: bool = True) -> list[Path]:
    """The label files of sections, none of a file for many images; images may lack one unless `strict`."""
    name = format_name(sections[0])
    if name and LABEL_FORMATS.get(name).is_index:
        return []
    pairs = [pair for section in sections for pair in section_pairs(section, strict=strict)]
    return [label for _, label in pairs if label is not None]


def sampled(paths: Sequence[Path]) -> list[Path]:
    """At most MOST_FILES of the files, evenly spaced."""
    return list(paths)[:: max(1, ceil_div(len(paths), MOST_FILES))]


def named_facts(label_format: str, root: Path, labels: Path, paths: Sequence[Path]) -> LabelFacts:
    """The classes of labels that name or number them. Raises UserError where they do not."""
    facts = LabelFacts()
    facts.add("label_format", label_format)
    form = LABEL_FORMATS.get(label_format)(labels)
    names, source = form.describe(paths)
    facts.named_in = labels if form.by_name else None
    if not names:
        raise UserError(f"{labels}: its files name no class")
    facts.add("classes", list(with_background(names)), f"{source}; what nothing covers is background")
    return facts


def class_mask_facts(labels: Path, label_format: Mapping[str, str]) -> LabelFacts:
    """The classes of masks that are named after them."""
    facts = LabelFacts(named_in=labels)
    facts.add("label_format", dict(label_format), "a mask for each class; later classes cover earlier ones")
    names = ClassMasks(labels, label_format["files"]).own_classes
    facts.add("classes", list(with_background(names)), "the names of the masks; what none covers is background")
    return facts


def picture_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of labels that are pictures, of class numbers or of colours."""
    chosen = sampled(paths)
    if has_colours(chosen):
        return colour_facts(root, labels, chosen, console)

    # the values in use
    pixels: Counter[int] = Counter()
    for counts in in_threads(lambda path: value_counts(read_label(path)), chosen, "reading labels", console):
        pixels.update(counts)

    # the names of the classes
    tables = class_tables(root, labels)
    table = tables[0] if tables else None
    names, source = (table.names, table.path.name) if table else ([], "")

    lossy = [path for path in chosen if path.suffix.lower() in LOSSY]
    if table is not None and has_gaps(table, pixels):
        facts = valued_facts(pixels, table, len(chosen))
    else:
        facts = lossy_facts(lossy[0], pixels) if lossy else index_facts(pixels, names, source, len(chosen))
    facts.named_in = table.path if table else None
    facts.notes += contradictions(tables)
    if "ignore" in facts.entries and names:
        facts.notes.append(
            f"{source} names {len(names)} classes, but the labels also hold {spans(facts.entries['ignore'])}, which is "
            "ignored: name it, or map it to a class"
        )
    palette = own_palette(chosen[0], len(facts.entries["classes"])) if "label_map" not in facts.entries else None
    if palette:
        facts.add("palette", palette, f"from {chosen[0].name}")
    return facts


def has_gaps(table: ClassTable, pixels: Mapping[int, int]) -> bool:
    """Report whether a table gives label values that are not the places of its classes, and are in use."""
    values = table.values
    given = any(entry.value is not None for entry in table.entries)
    return given and values != list(range(len(values))) and not set(values).isdisjoint(set(pixels) - {0})


def valued_facts(pixels: Mapping[int, int], table: ClassTable, files: int) -> LabelFacts:
    """The classes of labels whose values a table names; one called 255 is ignored."""
    facts = LabelFacts()
    named = {value: name for value, name in zip(table.values, table.names, strict=True) if value != IGNORED}
    outside = sorted(set(pixels) - set(named) - {IGNORED})
    facts.add(
        "classes",
        list(named.values()),
        f"from {table.path.name}, by its values; {files} labels hold {spans(sorted(pixels))}",
    )
    facts.add("label_map", {value: index for index, value in enumerate(named)}, f"the values in {table.path.name}")
    if outside:
        facts.add("ignore", outside, f"no name for {'it' if len(outside) == 1 else 'them'}")
    return facts


def index_facts(pixels: Mapping[int, int], names: Sequence[str], source: str, files: int) -> LabelFacts:
    """The classes of labels of class numbers, from the values in use and a list of names if there is one."""
    facts = LabelFacts()

    # masks of 0 and 255
    values = sorted(value for value in pixels if value != IGNORED)
    if not values:
        raise UserError("every pixel of the labels has the value 255, which means 'ignored'")
    found = f"{len(values)} values in {files} labels"
    if set(pixels) <= {0, IGNORED} and IGNORED in pixels:
        chosen = list(names) if len(names) == 2 else list(BINARY)
        facts.add("classes", chosen, "binary: the labels hold only 0 and 255")
        facts.add("label_map", {IGNORED: 1}, "255 is the second class, and nothing is ignored")
        return facts

    # numbers of named classes, numbers without names, or grey levels
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
            facts.add("ignore", outside, f"no name for {'it' if len(outside) == 1 else 'them'}")
    elif values in ([0, 1], [0], [1]):
        facts.add("classes", list(BINARY), "binary: the labels hold 0 and 1; rename them")
    elif len(values) > 1 and min(np.diff(values)) >= FAR:
        facts.add("classes", [f"value_{value}" for value in values], f"{found}, far apart; rename them")
        facts.add("label_map", {value: index for index, value in enumerate(values)}, "to class numbers")
    else:
        first = int(values[0] == 1)
        names = [f"class_{value}" for value in range(first, values[-1] + 1)]
        facts.add("classes", names, f"{found}: {spans(values)}; rename them")
        if first:
            facts.add("reduce_zero_label", True, "no label holds 0: the values begin with 1")

    if IGNORED in pixels:
        share = 100 * pixels[IGNORED] / sum(pixels.values())
        facts.reasons["classes"] += f"; 255 ({share:.2g}% of the pixels) is ignored"
    return facts


def spans(values: Sequence[int]) -> str:
    """Sorted whole numbers as `0-11, 14`."""
    numbered = groupby(enumerate(values), lambda pair: pair[1] - pair[0])
    runs = [[value for _, value in run] for _, run in numbered]
    return some((f"{run[0]}-{run[-1]}" if len(run) > 1 else run[0] for run in runs), 8)


def lossy_facts(example: Path, pixels: Mapping[int, int]) -> LabelFacts:
    """The classes of black and white masks saved as JPEG. Raises UserError for JPEG labels of more values."""
    near = sum(count for value, count in pixels.items() if value < 32 or value > 223)
    if near < 0.95 * sum(pixels.values()) or max(pixels) < 200:
        raise UserError(f"{example}: JPEG has changed the values of the labels; save them as PNG")
    facts = LabelFacts()
    facts.add(
        "label_format",
        {"type": "rgb", "other": "nearest"},
        "JPEG has changed values: each pixel takes the nearest colour",
    )
    facts.add("classes", list(BINARY), "binary: black and white; rename them")
    facts.add("palette", [[0, 0, 0], [255, 255, 255]])
    return facts


# Colours


def has_colours(paths: Sequence[Path]) -> bool:
    """Report whether labels are pictures in colours, with several channels that differ."""
    for path in paths[:20]:
        if path.suffix.lower() == ".npy":
            continue
        with Image.open(path) as image:
            if image.mode in ("RGB", "RGBA") and np.ptp(np.asarray(image.convert("RGB")), axis=2).any():
                return True
    return False


def colour_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of colour masks: those of a colour table near them if there is one, else one for each colour."""
    tables = class_tables(root, labels)
    table = next((table for table in tables if table.has_colours), None)
    facts = LabelFacts(named_in=table.path if table else None, notes=contradictions(tables))

    # colours that a table names
    if table is not None:
        name = table.path.name
        named = {entry.name: entry.colour for entry in table.entries if entry.colour is not None}
        label_format: Any = "cvat" if name == LABEL_MAP else {"type": "rgb", "colours": name}
        if any(path.suffix.lower() in LOSSY for path in paths):
            label_format = {"type": "rgb", "colours": name, "other": "nearest"}
        facts.add("label_format", label_format, f"colour masks; {name} maps classes to colours")
        facts.add("classes", list(named), f"from {name}")
        facts.add("palette", [list(colour) for colour in named.values()])
        return facts

    # the colours in use
    pixels: Counter[int] = Counter()
    for counts in in_threads(colour_counts, paths, "reading labels", console):
        pixels.update(counts)
    total = sum(pixels.values())
    codes = sorted(code for code, count in pixels.items() if len(pixels) <= MOST_COLOURS or count > RARE * total)
    if len(codes) > MOST_COLOURS or sum(pixels[code] for code in codes) < total / 2:
        raise UserError(
            f"{paths[0]}: the labels hold {len(pixels)} colours, too many for classes: these are images, or masks "
            "damaged by JPEG; name the classes' colours in a labelmap.txt (lines of `name:r,g,b::`) for such masks"
        )

    # a class for each; rare colours between them come from smooth edges
    smooth = len(codes) < len(pixels)
    reason = f"colour masks, {len(codes)} colours in {len(paths)} labels"
    if smooth:
        reason += f" and {len(pixels) - len(codes)} rare ones between them, each taken as the nearest"
    facts.add("label_format", {"type": "rgb", "other": "nearest"} if smooth else "rgb", reason)
    names = ["background" if code == 0 else f"colour_{code:06x}" for code in codes]
    facts.add("classes", names, "one for each colour; rename them")
    facts.add("palette", [[code >> 16, code >> 8 & 255, code & 255] for code in codes])
    return facts


def colour_counts(path: Path) -> dict[int, int]:
    """The colours of a label file (0xrrggbb) with their number of pixels."""
    picture = decode_image(read_bytes(path), "color_ignore_orientation", name=str(path)).astype(np.int32)
    return value_counts(picture @ np.array([1 << 16, 1 << 8, 1]))


def own_palette(path: Path, count: int) -> list[list[int]] | None:
    """The colours of an indexed PNG's first entries; None for other files, and if two classes share a colour."""
    if path.suffix.lower() == ".npy":
        return None
    with Image.open(path) as image:
        colours = image.getpalette("RGB") if image.mode == "P" else None
    if not colours or len(colours) < 3 * count:
        return None
    palette = [list(colours[3 * index : 3 * index + 3]) for index in range(count)]
    is_grey = all(len(set(colour)) == 1 for colour in palette)
    distinct = len({tuple(colour) for colour in palette}) == count
    return palette if distinct and not is_grey else None
