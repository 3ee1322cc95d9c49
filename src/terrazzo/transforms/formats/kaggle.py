"""Kaggle's tables of run lengths: a CSV with a row for each object, or for each image and class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, start_lengths, trimmed
from terrazzo.transforms.formats.shapes import NAMELESS, IndexLabels

# columns by their names without capitals and underscores
PIXELS = ("encodedpixels", "rle", "rlemask", "maskrle", "encoding", "rleencoding", "segmentation", "annotation")
IMAGES = ("imageid", "image", "img", "imgid", "imagename", "filename", "file", "id")
CLASSES = ("classid", "class", "label", "classname", "category", "categoryid", "labelid", "celltype", "organ")
BOTH = ("imageidclassid", "imagelabel", "imageclass")  # image and class, joined by an underscore
RUNS = re.compile(r"\s*\d+(\s+\d+)*\s*")
EMPTY = ("", "-1", "nan", "null", "none")
DIRECTIONS = ("columns", "rows")


@LABEL_FORMATS.register(name="kaggle_rle")
class KaggleLabels(IndexLabels):
    """Pairs of start and length, from 1 on, down the columns, or with `direction: rows` along the rows.

    Numbers of classes become `class_1`, `class_2` ...; without a column for them there is one class, `object`.
    """

    suffixes = (".csv",)
    names_classes = True
    noun = "row"
    unlabelled = "background"  # usual tables omit images without an object
    about = "a CSV with columns such as ImageId and EncodedPixels"

    def __init__(self, root: Path, order: str = "", direction: str = "columns") -> None:
        if direction not in DIRECTIONS:
            raise UserError(f"label_format: direction is {' or '.join(DIRECTIONS)}, not {direction!r}")
        self.direction = direction
        super().__init__(root, order)

    @classmethod
    def images(cls, content: Any) -> Mapping[str, Any]:
        if not isinstance(content, list) or not content:
            raise ValueError("it has no rows")
        columns = {re.sub(r"[\W_]", "", str(name)).lower(): name for name in content[0]}
        pixels, joined = column(columns, PIXELS), column(columns, BOTH)
        image, category = joined or column(columns, IMAGES), column(columns, CLASSES)
        if pixels is None or image is None:
            raise ValueError(f"its columns are {', '.join(map(str, content[0]))}")
        found: dict[str, list[tuple[int, str, str]]] = {}
        for number, row in enumerate(content, 2):
            name, runs, kind = row[image], row[pixels].strip(), row[category] if category else ""
            if joined:
                name, _, kind = name.rpartition("_")
            rows = found.setdefault(name, [])
            if runs.lower() not in EMPTY:
                rows.append((number, class_name(kind), runs))
        if not any(RUNS.fullmatch(rows[0][2]) for rows in found.values() if rows):
            raise ValueError(f"its column {pixels} holds no run lengths")
        return found

    @classmethod
    def classes(cls, content: Any) -> Sequence[str]:
        names = {name for rows in cls.images(content).values() for _, name, _ in rows}
        return sorted(names, key=lambda name: (len(name) if name.startswith("class_") else 0, name))

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        names, source = super().describe(paths)
        return names, f"{source}; its runs are read along the {self.direction} of pixels (`direction`)"

    def objects(self, content: Any) -> Any:
        return content

    def place(self, item: Any, number: int) -> str:
        return f"line {item[0]}"

    def name_of(self, item: Any) -> str:
        return item[1]

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        return trimmed(start_lengths(item[2], size, self.direction == "rows"))


def column(columns: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The first of the columns that has one of these names."""
    return next((columns[name] for name in names if name in columns), None)


def class_name(text: str) -> str:
    """The name of a class, or of its number."""
    text = text.strip()
    is_number = re.fullmatch(r"\d+(\.0*)?", text)
    return f"class_{int(float(text))}" if is_number else text or NAMELESS
