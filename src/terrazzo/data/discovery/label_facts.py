"""The classes of a data set without a description, from its label files: names, colours, ignored and binary values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from terrazzo.data.discovery.layouts import format_name, section_pairs
from terrazzo.data.pairs import PairingError
from terrazzo.data.soft_labels import nearest_grey, real_values, solid_counts
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError, some
from terrazzo.system.arithmetic import ceil_div
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.formats.base import BACKGROUND, read_json, search_upwards, with_background
from terrazzo.transforms.formats.coco import CocoLabels
from terrazzo.transforms.formats.colours import LABEL_MAP, read_colour_table
from terrazzo.transforms.formats.yolo import NAME_FILES, names_in
from terrazzo.transforms.label_files import read_label_file
from terrazzo.transforms.labels import IGNORED, value_counts
from terrazzo.transforms.opening import open_picture, read_bytes
from terrazzo.transforms.tiff import SAMPLES

MOST_FILES = 1000  # label files whose values are read
NAME_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "names.txt", *NAME_FILES)
COLOUR_TABLES = (LABEL_MAP, "class_dict.csv", "label_colors.txt", "label_colours.txt", "colormap.txt", "classes.csv")
NAMING_FORMATS = ("coco", "labelme", "yolo")  # whose files name or number their classes
MOST_COLOURS = 64
LOSSY = (".jpg", ".jpeg")
RARE = 1e-3  # share of the pixels below which a colour is an artefact of an edge between two others
FAR = 5  # distance between values that are grey levels rather than class numbers
MOST_NUMBERS = 1024  # classes that are numbered without gaps
NO_DATA = (65535, 2**31 - 1)  # the largest values of their types
BINARY = ("background", "foreground")


@dataclass
class LabelFacts:
    """Entries of the short form's `data`, a comment for each on how it was found, and the file that names classes."""

    entries: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    named_in: Path | None = None

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
    if name in NAMING_FORMATS:
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
    if name in NAMING_FORMATS:
        return named_facts(name, root, folder, paths)
    try:
        if has_shapes_in_alpha(paths):
            return alpha_facts(())
        return colour_facts(root, folder, sampled(paths), None) if has_colours(paths) else None
    except (UserError, OSError):  # a damaged file or too many colours: whoever reads every file reports it
        return None


def label_folder(section: Mapping[str, Any]) -> Path:
    """The folder (or COCO file) of a section's labels."""
    return Path(section["data_root"]) / (section.get("data_prefix") or {}).get("seg_map_path", "")


def label_files(sections: Sequence[Mapping[str, Any]], *, strict: bool = True) -> list[Path]:
    """The label files of sections, none of a COCO file; images may lack one unless `strict`."""
    if format_name(sections[0]) == "coco":
        return []
    pairs = [pair for section in sections for pair in section_pairs(section, strict=strict)]
    return [label for _, label in pairs if label is not None]


def sampled(paths: Sequence[Path]) -> list[Path]:
    """At most MOST_FILES of the files, evenly spaced."""
    return list(paths)[:: max(1, ceil_div(len(paths), MOST_FILES))]


def named_facts(label_format: str, root: Path, labels: Path, paths: Sequence[Path]) -> LabelFacts:
    """The classes of labels that name them: of COCO, Labelme and YOLO. Raises UserError where they do not."""
    facts = LabelFacts()
    facts.add("label_format", label_format)
    if label_format == "coco":
        names, source = CocoLabels(labels).own_classes, f"the categories of {labels.name}"
        facts.named_in = labels
    elif label_format == "labelme":
        shapes: Counter[str] = Counter()
        for path in paths:
            shapes.update(str(shape["label"]) for shape in read_json(path).get("shapes", ()))
        names = tuple(name for name, _ in shapes.most_common() if name != "__ignore__")
        source = f"the labels of {len(paths)} files, the most frequent first"
        facts.named_in = labels
    else:
        facts.named_in = nearby(root, labels, NAME_FILES)
        if facts.named_in is not None:
            names, source = names_in(facts.named_in), facts.named_in.name
        else:
            lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            count = 1 + max((int(line.split()[0]) for line in lines), default=0)
            names, source = tuple(f"class_{index}" for index in range(count)), "the numbers in use: rename them"
    if not names:
        raise UserError(f"{labels}: its files name no class")
    facts.add("classes", list(with_background(names)), f"{source}; what nothing covers is background")
    return facts


def nearby(root: Path, labels: Path, names: Sequence[str]) -> Path | None:
    """The first file with one of these names in the folder of labels or above it, up to the root."""
    return search_upwards(labels, names, len(labels.relative_to(root).parts))


@dataclass
class FoundValues:
    """The values of many labels with their number of pixels, and of those inside regions of one value."""

    files: int
    pixels: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    zero_is_no_data: bool = False


def found_values(paths: Sequence[Path], console: Console | None) -> FoundValues:
    """The values of label files that hold class numbers."""
    found = FoundValues(len(paths))

    def count(path: Path) -> tuple[dict[int, int], dict[int, int], bool]:
        label, zero_is_no_data = read_label_file(path)
        counts = value_counts(label)
        return counts, solid_counts(label, counts), zero_is_no_data

    for counts, solid, zero_is_no_data in in_threads(count, paths, "reading labels", console):
        found.pixels.update(counts)
        found.solid.update(solid)
        found.zero_is_no_data |= zero_is_no_data
    return found


def picture_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of labels that are pictures, of class numbers or of colours."""
    chosen = sampled(paths)
    if has_shapes_in_alpha(chosen):
        listed = nearby(root, labels, NAME_LISTS)
        return alpha_facts(names_in(listed) if listed else ())
    if has_colours(chosen):
        return colour_facts(root, labels, chosen, console)
    found = found_values(chosen, console)

    # the names of the classes
    listed, table = nearby(root, labels, NAME_LISTS), nearby(root, labels, COLOUR_TABLES)
    if listed is not None:
        names, source = names_in(listed), listed.name
    else:
        names, source = tuple(read_colour_table(table)) if table else (), table.name if table else ""

    lossy = next((path for path in chosen if path.suffix.lower() in LOSSY), None)
    values = real_values(found.pixels, found.solid) or (black_and_white(lossy, found.pixels) if lossy else None)
    facts = soft_facts(values, names, source, found) if values else index_facts(found, names, source)
    facts.named_in = listed or table
    has_own = "label_map" in facts.entries or "label_format" in facts.entries
    palette = own_palette(chosen[0], len(facts.entries["classes"])) if not has_own else None
    if palette:
        facts.add("palette", palette, f"from {chosen[0].name}")
    return facts


def two_classes(names: Sequence[str]) -> list[str]:
    """The names of the classes of a mask: one is that of the foreground, and other than two are no names of them."""
    if len(names) == 1 and names[0].lower() not in BACKGROUND:
        return [BINARY[0], *names]
    return list(names) if len(names) == 2 else list(BINARY)


def index_facts(found: FoundValues, names: Sequence[str], source: str) -> LabelFacts:
    """The classes of labels of class numbers, from the values in use and a list of names if there is one.

    Raises UserError where all pixels are of one value, and for values that are no classes.
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
    without = [value for value in values if value in NO_DATA]
    if without:
        facts.add("ignore", without, "the largest value of its type: taken as no data")
    if found.zero_is_no_data and 0 in values and len(values) - len(without) > 2:
        without.append(0)
        facts.add("ignore", sorted(without), "the files declare 0 as no data")
    values = [value for value in values if value not in without]

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
            facts.add("reduce_zero_label", True, "the values begin with 1, and 0 is no class")


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
        nearest_grey(values, classes),
        f"the labels hold {len(found.pixels)} values, as JPEG or smooth resizing has changed them: each pixel takes "
        f"the nearest of {some(values)}",
    )
    kind = "binary: dark and light" if len(values) == 2 else f"{len(values)} values"
    facts.add("classes", classes, f"{kind}; " + (f"from {source}" if names else "rename them"))
    return facts


def alpha_facts(names: Sequence[str]) -> LabelFacts:
    """The classes of masks whose shapes are in the alpha channel."""
    facts = LabelFacts()
    facts.add("label_format", "alpha", "the shapes are in the alpha channel; the colour is the same everywhere")
    facts.add("classes", two_classes(names), "binary: transparent and opaque; rename them")
    return facts


# Colours


def first_pictures(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield the first labels that are in colour or have an alpha channel, as (H, W, 4)."""
    for path in paths[:20]:
        if path.suffix.lower() == ".npy":
            continue
        try:
            with open_picture(path) as image:
                bands = getattr(image, "tag_v2", {}).get(SAMPLES, 3)
                if image.mode in ("RGB", "RGBA", "LA", "PA") and bands in (2, 3, 4):
                    yield np.asarray(image.convert("RGBA"))
        except (UserError, OSError, SyntaxError, ValueError):  # the reader of labels knows more
            continue


def has_colours(paths: Sequence[Path]) -> bool:
    """Report whether labels are pictures in colours, with several channels that differ."""
    return any(np.ptp(picture[..., :3], axis=2).any() for picture in first_pictures(paths))


def has_shapes_in_alpha(paths: Sequence[Path]) -> bool:
    """Report whether labels are pictures of one colour whose alpha channel has the shapes."""
    return any(
        np.ptp(picture[..., 3]) and (picture[..., :3] == picture[0, 0, :3]).all() for picture in first_pictures(paths)
    )


def colour_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of colour masks: those of a colour table near them if there is one, else one for each colour."""
    table = nearby(root, labels, COLOUR_TABLES)
    facts = LabelFacts(named_in=table)

    # colours that a table names
    if table is not None:
        named = read_colour_table(table)
        label_format: Any = "cvat" if table.name == LABEL_MAP else {"type": "rgb", "colours": table.name}
        if any(path.suffix.lower() in LOSSY for path in paths):
            label_format = {"type": "rgb", "colours": table.name, "other": "nearest"}
        facts.add("label_format", label_format, f"colour masks; {table.name} maps classes to colours")
        facts.add("classes", list(named), f"from {table.name}")
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
    try:
        with open_picture(path) as image:
            colours = image.getpalette("RGB") if image.mode == "P" else None
    except UserError:  # a form that only the reader of labels knows
        return None
    if not colours or len(colours) < 3 * count:
        return None
    palette = [list(colours[3 * index : 3 * index + 3]) for index in range(count)]
    is_grey = all(len(set(colour)) == 1 for colour in palette)
    distinct = len({tuple(colour) for colour in palette}) == count
    return palette if distinct and not is_grey else None
