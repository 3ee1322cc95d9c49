"""YOLO's polygons: one text file for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from terrazzo.config.reading.markup import read_yaml
from terrazzo.errors import UserError
from terrazzo.system.text import read_lines, read_text
from terrazzo.transforms.formats.base import BACKGROUND, LABEL_FORMATS, search_upwards
from terrazzo.transforms.formats.raster import Patch, coordinates, polygon
from terrazzo.transforms.formats.shapes import ShapeLabels, blaming
from terrazzo.transforms.labels import IGNORED

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
MOST_SHARE = 2.0  # of the image's size, of a point that annotators set just outside of it; beyond are pixels


def as_names(value: Any, where: Any) -> tuple[str, ...]:
    """Class names given as a list or as a mapping from their numbers. Raises UserError for anything else."""
    if isinstance(value, Mapping) and all(index in value for index in range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(f"{where}: `names` must list the classes, or map their numbers from 0 on to them")
    return tuple(str(name) for name in value)


def names_in(path: Path) -> tuple[str, ...]:
    """Read class names from a data.yaml or a text file with one per line. Raises UserError for a damaged file."""
    if path.suffix not in (".yaml", ".yml"):
        return tuple(read_lines(path))
    content = read_yaml(path)
    return as_names(content.get("names") if isinstance(content, Mapping) else None, path)


class Line(NamedTuple):
    """A line of a label file: its number, and the words in it."""

    number: int
    words: Sequence[str]

    @property
    def class_number(self) -> int:
        """The class, which some programs write as 0.0. Raises ValueError for anything but a whole number."""
        number = float(self.words[0]) if is_number(self.words[0]) else 0.5
        if not number.is_integer():
            raise ValueError(f"'{' '.join(self.words)[:40]}' is not `class x y x y ...`")
        if number >= IGNORED:
            raise ValueError(f"class {self.words[0][:40]} is beyond the {IGNORED} that a label can hold")
        return int(number)

    @property
    def points(self) -> np.ndarray:
        """Points (x, y) as shares of the image's size. Raises ValueError for too few of them, and for pixels."""
        numbers = np.array(self.words[1:], np.float64)
        if len(numbers) < 6 or len(numbers) % 2:
            kind = "a box" if len(numbers) == 4 else f"{len(numbers)} numbers"
            raise ValueError(f"{kind}, not the x and y of at least three points")
        points = coordinates(numbers)
        if points.max() > MOST_SHARE:
            raise ValueError(f"{points.max():g} is not a share of the image's size, from 0 to 1")
        return points


def is_number(word: str) -> bool:
    """Report whether a word is a number, finite or not."""
    try:
        float(word)
    except ValueError:
        return False
    return True


@LABEL_FORMATS.register(name="yolo")
class YoloLabels(ShapeLabels):
    """Polygons by class numbers, which `names` lists the names of.

    Without it a data.yaml or classes.txt near the labels does, else they number the classes without the background. An
    empty file stands for an image without objects.
    """

    suffixes = (".txt",)
    names_classes = True
    unlabelled = "background"
    usual_order = "area"

    def __init__(self, root: Path, order: str = "", names: Any = None) -> None:
        super().__init__(root, order)
        self.named_in = search_upwards(root, NAME_FILES) if names is None else None
        if names is not None:
            self.own_classes = as_names(names, "label_format")
        elif self.named_in is not None:
            self.own_classes = names_in(self.named_in)
        self.by_name = bool(self.own_classes)

    @staticmethod
    def content(path: Path) -> str:
        return read_text(path)

    @classmethod
    def recognises(cls, content: Any) -> bool:
        return isinstance(content, str) and any(
            len(words) > 4 and all(map(is_number, words)) for words in map(str.split, content.splitlines()[:20])
        )

    def objects(self, content: Any) -> Iterator[Line]:
        lines = (Line(number, line.split()) for number, line in enumerate(content.splitlines(), 1))
        return (line for line in lines if line.words)

    def place(self, item: Any, number: int) -> str:
        return f"line {item.number}"

    def name_of(self, item: Any) -> str:
        numbered = self.own_classes or tuple(name for name in self.names.classes if name.lower() not in BACKGROUND)
        number = item.class_number
        if not 0 <= number < len(numbered):
            raise ValueError(f"class {number}; there are {len(numbered)}: {', '.join(numbered)}")
        return numbered[number]

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        return polygon(item.points * (size[1], size[0]), size)

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        if self.own_classes:
            return self.own_classes, f"from {self.named_in.name}" if self.named_in else "the names given"
        count = 1
        for path in paths:
            for where, item in self.each_of(path, self.existing(path)):
                with blaming(path, where):
                    count = max(count, item.class_number + 1)
        return tuple(f"class_{index}" for index in range(count)), "the numbers in use: rename them"
