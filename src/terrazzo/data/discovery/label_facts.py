"""What the label files of an undescribed data set say: classes, colours, what is ignored, whether it is binary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from terrazzo.errors import UserError
from terrazzo.transforms.decode import decode_image, read_bytes, read_label
from terrazzo.transforms.formats.base import search_upwards, with_background
from terrazzo.transforms.formats.coco import CocoLabels, read_json
from terrazzo.transforms.formats.colours import LABEL_MAP, read_colour_table
from terrazzo.transforms.formats.yolo import LISTS, names_in

MOST_FILES = 1000  # whose values are looked at
NAME_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "names.txt", *LISTS)
COLOUR_TABLES = (LABEL_MAP, "class_dict.csv", "label_colors.txt", "label_colours.txt", "colormap.txt", "classes.csv")
MOST_COLOURS = 64
LOSSY = (".jpg", ".jpeg")
RARE = 1e-3  # share of the pixels below which a colour is taken for the edge between two
FAR = 5  # between values that are grey levels rather than class numbers
BINARY = ("background", "foreground")
IGNORED = 255


@dataclass
class LabelFacts:
    """Entries of the short form's `data`, and the comment that says for each how it was found."""

    entries: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def say(self, key: str, value: Any, reason: str = "") -> None:
        self.entries[key] = value
        self.reasons[key] = reason


def named_facts(label_format: str, root: Path, labels: Path, paths: Sequence[Path]) -> LabelFacts:
    """The classes of labels that name them: of COCO, Labelme and YOLO. Raises UserError where they do not."""
    facts = LabelFacts()
    facts.say("label_format", label_format)
    if label_format == "coco":
        names, source = CocoLabels(labels).own_classes, f"the categories of {labels.name}"
    elif label_format == "labelme":
        shapes: Counter[str] = Counter()
        for path in paths:
            shapes.update(str(shape["label"]) for shape in read_json(path).get("shapes", ()))
        names = tuple(name for name, _ in shapes.most_common() if name != "__ignore__")
        source = f"the labels of {len(paths)} files, the most frequent first"
    else:
        listed = search_upwards(labels, LISTS, levels_to(root, labels))
        numbers = [int(line.split()[0]) for path in paths for line in path.read_text().splitlines() if line.strip()]
        names = names_in(listed) if listed else tuple(f"class_{index}" for index in range(max(numbers, default=0) + 1))
        source = listed.name if listed else "the numbers in use: rename them"
    if not names:
        raise UserError(f"{labels}: its files name no class")
    facts.say("classes", list(with_background(names)), f"{source}; what nothing covers is background")
    return facts


def levels_to(root: Path, folder: Path) -> int:
    """How many folders lie between one and the root."""
    return len(folder.relative_to(root).parts)


def picture_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of labels that are pictures, of class numbers or of colours."""
    chosen = list(paths)[:: -(-len(paths) // MOST_FILES) or 1]
    levels = levels_to(root, labels)
    if has_colours(chosen):
        return colour_facts(search_upwards(labels, COLOUR_TABLES, levels), chosen, console)
    pixels: Counter[int] = Counter()
    with ThreadPoolExecutor() as pool:
        work = pool.map(values_in, chosen)
        for counts in track(work, "reading labels", len(chosen), console=console, transient=True, disable=not console):
            pixels.update(counts)
    listed, table = search_upwards(labels, NAME_LISTS, levels), search_upwards(labels, COLOUR_TABLES, levels)
    if listed:
        names, source = names_in(listed), listed.name
    else:
        names, source = tuple(read_colour_table(table)) if table else (), table.name if table else ""
    lossy = [path for path in chosen if path.suffix.lower() in LOSSY]
    facts = lossy_facts(lossy[0], pixels) if lossy else index_facts(pixels, names, source, len(chosen))
    palette = own_palette(chosen[0], len(facts.entries["classes"])) if "label_map" not in facts.entries else None
    if palette:
        facts.say("palette", palette, f"from {chosen[0].name}")
    return facts


def values_in(path: Path) -> dict[int, int]:
    """The values of a label file and how many pixels have them."""
    values, counts = np.unique(read_label(path), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def index_facts(pixels: Mapping[int, int], names: Sequence[str], source: str, files: int) -> LabelFacts:
    """What the values in use and a list of names, if there is one, say together."""
    facts = LabelFacts()
    values = sorted(value for value in pixels if value != IGNORED)
    if not values:
        raise UserError("every pixel of the labels has the value 255, which means 'ignored'")
    found = f"{len(values)} values in {files} labels"
    if set(pixels) <= {0, IGNORED} and IGNORED in pixels:
        chosen = list(names) if len(names) == 2 else list(BINARY)
        facts.say("classes", chosen, "binary: the labels hold 0 and 255 alone")
        facts.say("label_map", {IGNORED: 1}, "255 is the second class, and nothing is ignored")
        return facts
    if names:
        one_more = values[0] >= 1 and values[-1] == len(names)
        facts.say("classes", list(names), f"from {source}; {found}: {spans(values)}")
        outside = [value for value in values if value >= len(names) + one_more]
        if one_more:
            facts.say("reduce_zero_label", True, f"the values begin with 1, and {values[-1]} is the number of classes")
        elif values[-1] == len(names) and values[0] == 0 and len(values) == len(names) + 1:
            facts.reasons["classes"] += f"; {values[-1]} has no name: if the names begin with value 1, it should be "
            facts.reasons["classes"] += "`reduce_zero_label: true` in place of `ignore`"
        if outside:
            facts.say("ignore", outside, f"no name for {'it' if len(outside) == 1 else 'them'}")
    elif values in ([0, 1], [0], [1]):
        facts.say("classes", list(BINARY), "binary: the labels hold 0 and 1; rename them")
    elif len(values) > 1 and min(np.diff(values)) >= FAR:
        facts.say("classes", [f"value_{value}" for value in values], f"{found}, far apart; rename them")
        facts.say("label_map", {value: index for index, value in enumerate(values)}, "to class numbers")
    else:
        first = int(values[0] == 1)
        names = [f"class_{value}" for value in range(first, values[-1] + 1)]
        facts.say("classes", names, f"{found}: {spans(values)}; rename them")
        if first:
            facts.say("reduce_zero_label", True, "no label holds 0: the values begin with 1")
    if IGNORED in pixels:
        share = 100 * pixels[IGNORED] / sum(pixels.values())
        facts.reasons["classes"] += f"; 255 ({share:.2g}% of the pixels) is ignored"
    return facts


def spans(values: Sequence[int]) -> str:
    """`0-11, 14` for sorted whole numbers."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    listed = ["-".join(map(str, part)) for part in parts]
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def lossy_facts(example: Path, pixels: Mapping[int, int]) -> LabelFacts:
    """Black and white masks saved as JPEG. Raises UserError for JPEG labels of more values."""
    near = sum(count for value, count in pixels.items() if value < 32 or value > 223)
    if near < 0.95 * sum(pixels.values()) or max(pixels) < 200:
        raise UserError(f"{example}: JPEG has changed the values of the labels; save them as PNG")
    facts = LabelFacts()
    facts.say("label_format", {"type": "rgb", "other": "nearest"}, "JPEG has changed values: the nearest colour counts")
    facts.say("classes", list(BINARY), "binary: black and white; rename them")
    facts.say("palette", [[0, 0, 0], [255, 255, 255]])
    return facts


# Colours


def has_colours(paths: Sequence[Path]) -> bool:
    """Whether labels are pictures in colours: of several channels that are not the same."""
    for path in paths[:20]:
        if path.suffix.lower() == ".npy":
            continue
        with Image.open(path) as image:
            if image.mode in ("RGB", "RGBA") and np.ptp(np.asarray(image.convert("RGB")), axis=2).any():
                return True
    return False


def colour_facts(table: Path | None, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of colour masks: of a table if there is one, else a class a colour."""
    facts = LabelFacts()
    if table is not None:
        named = read_colour_table(table)
        label_format: Any = "cvat" if table.name == LABEL_MAP else {"type": "rgb", "colours": table.name}
        if any(path.suffix.lower() in LOSSY for path in paths):
            label_format = {"type": "rgb", "colours": table.name, "other": "nearest"}
        facts.say("label_format", label_format, f"colour masks; {table.name} says which class has which colour")
        facts.say("classes", list(named), f"from {table.name}")
        facts.say("palette", [list(colour) for colour in named.values()])
        return facts
    pixels: Counter[int] = Counter()
    for path in track(paths, "reading labels", console=console, transient=True, disable=not console):
        picture = decode_image(read_bytes(path), "color_ignore_orientation", name=str(path)).astype(np.int32)
        different, counts = np.unique(picture @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)
        pixels.update(dict(zip(different.tolist(), counts.tolist(), strict=True)))
    total = sum(pixels.values())
    codes = sorted(code for code, count in pixels.items() if len(pixels) <= MOST_COLOURS or count > RARE * total)
    if len(codes) > MOST_COLOURS or sum(pixels[code] for code in codes) < total / 2:
        raise UserError(
            f"{paths[0]}: the labels hold {len(pixels)} colours, too many for classes: these are images, or masks that "
            "JPEG has spoilt; name the classes' colours in a labelmap.txt (lines of `name:r,g,b::`) for such masks"
        )
    smooth = len(codes) < len(pixels)
    reason = f"colour masks, {len(codes)} colours in {len(paths)} labels"
    if smooth:
        reason += f" and {len(pixels) - len(codes)} rare ones between them, each taken as the nearest"
    facts.say("label_format", {"type": "rgb", "other": "nearest"} if smooth else "rgb", reason)
    names = ["background" if code == 0 else f"colour_{code:06x}" for code in codes]
    facts.say("classes", names, "one a colour; rename them")
    facts.say("palette", [[code >> 16, code >> 8 & 255, code & 255] for code in codes])
    return facts


def own_palette(path: Path, count: int) -> list[list[int]] | None:
    """The colours of an indexed PNG's first entries; None for other files, and where two classes share a colour."""
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
