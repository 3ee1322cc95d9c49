"""The classes of a data set without a description, from its label files: names, colours, ignored and binary values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.discovery.class_tables import ClassTable, class_tables, contradictions
from terrazzo.data.discovery.layouts import format_name, open_format, section_pairs
from terrazzo.data.discovery.value_facts import (
    LabelFacts,
    black_and_white,
    found_values,
    index_facts,
    soft_facts,
    spans,
    two_classes,
    valued_facts,
)
from terrazzo.data.pairs import PairingError
from terrazzo.data.soft_labels import real_values
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError
from terrazzo.system.arithmetic import ceil_div
from terrazzo.system.terminal import Console
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.formats.base import LABEL_FORMATS, with_background
from terrazzo.transforms.formats.tables import LABEL_MAP
from terrazzo.transforms.labels import value_counts
from terrazzo.transforms.opening import open_picture, read_bytes
from terrazzo.transforms.tiff import SAMPLES

MOST_FILES = 1000  # label files whose values are read
MOST_COLOURS = 64
LOSSY = (".jpg", ".jpeg")
RARE = 1e-3  # share of the pixels below which a colour is an artefact of an edge between two others


def label_facts(root: Path, sections: Sequence[Mapping[str, Any]], console: Console | None = None) -> LabelFacts:
    """The classes of data sets below `root`, from their labels and the files near them that name classes.

    Raises UserError for images without labels, and for labels that do not show what the classes are.
    """
    folder, name = label_folder(sections[0]), format_name(sections[0])
    paths = label_files(sections)
    folder = folder if folder.exists() or not paths else paths[0].parent  # of several folders, the first one
    if name and LABEL_FORMATS.get(name).names_classes:
        return named_facts(sections[0]["label_format"], folder, paths)
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
    if name and LABEL_FORMATS.get(name).names_classes:
        return named_facts(sections[0]["label_format"], folder, paths)
    try:
        if has_shapes_in_alpha(paths):
            return alpha_facts(())
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


def named_facts(label_format: str | Mapping[str, Any], labels: Path, paths: Sequence[Path]) -> LabelFacts:
    """The classes of labels that name or number them. Raises UserError where they do not."""
    facts = LabelFacts()
    facts.add("label_format", label_format)
    form = open_format(label_format, labels)
    names, source = form.describe(paths)
    facts.named_in = labels if form.by_name else None
    if not names:
        raise UserError(f"{labels}: its files name no class")
    facts.add("classes", list(with_background(names)), f"{source}; what nothing covers is background")
    return facts


def picture_facts(root: Path, labels: Path, paths: Sequence[Path], console: Console | None) -> LabelFacts:
    """The classes of labels that are pictures, of class numbers or of colours."""
    chosen = sampled(paths)
    if has_shapes_in_alpha(chosen):
        tables = class_tables(root, labels)
        return alpha_facts(tables[0].names if tables else ())
    if has_colours(chosen):
        return colour_facts(root, labels, chosen, console)
    found = found_values(chosen, console)

    # the names of the classes
    tables = class_tables(root, labels)
    table = tables[0] if tables else None
    names, source = (table.names, table.path.name) if table else ([], "")

    lossy = next((path for path in chosen if path.suffix.lower() in LOSSY), None)
    values = real_values(found.pixels, found.solid) or (black_and_white(lossy, found.pixels) if lossy else None)
    if table is not None and has_gaps(table, found.pixels) and not values:
        facts = valued_facts(found, table)
    else:
        facts = soft_facts(values, names, source, found) if values else index_facts(found, names, source)
    facts.named_in = table.path if table else None
    facts.notes += contradictions(tables)
    unnamed = [value for value in facts.entries.get("ignore", ()) if value not in found.no_data]
    if unnamed and names:
        facts.notes.append(
            f"{source} names {len(names)} classes, but the labels also hold {spans(unnamed)}, which is ignored: name "
            "it, or map it to a class"
        )
    has_own = "label_map" in facts.entries or "label_format" in facts.entries
    palette = own_palette(chosen[0], len(facts.entries["classes"])) if not has_own else None
    if palette:
        facts.add("palette", palette, f"from {chosen[0].name}")
    return facts


def has_gaps(table: ClassTable, pixels: Mapping[int, int]) -> bool:
    """Report whether a table gives label values that are not the indices of its classes, and are in use."""
    values = table.values
    given = any(entry.value is not None for entry in table.entries)
    return given and values != list(range(len(values))) and not set(values).isdisjoint(set(pixels) - {0})


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
