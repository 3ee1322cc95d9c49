"""YOLO's polygons: one text file for each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from terrazzo.errors import UserError
from terrazzo.transforms.decode import read_size
from terrazzo.transforms.formats.base import BACKGROUND, LABEL_FORMATS, LabelFormat, search_upwards
from terrazzo.transforms.formats.raster import Shape, check_order, paint, polygon

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


def as_names(value: Any, where: Any) -> tuple[str, ...]:
    """Class names given as a list or as a mapping from their numbers. Raises UserError for anything else."""
    if isinstance(value, Mapping) and all(index in value for index in range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(f"{where}: `names` must list the classes, or map their numbers from 0 on to them")
    return tuple(str(name) for name in value)


def names_in(path: Path) -> tuple[str, ...]:
    """Read class names from a data.yaml or a text file with one per line. Raises UserError for a damaged file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix not in (".yaml", ".yml"):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return as_names(content.get("names") if isinstance(content, Mapping) else None, path)


@LABEL_FORMATS.register(name="yolo")
class YoloLabels(LabelFormat):
    """Polygons, smaller ones over larger ones, or with `order: file` later ones over earlier ones.

    The files hold numbers, which `names` lists the names of. Without it a data.yaml or classes.txt near the labels
    does, else they number the classes without the background. An empty file stands for an image without objects.
    """

    suffixes = (".txt",)

    def __init__(self, root: Path, order: str = "area", names: Any = None) -> None:
        check_order(order)
        self.order = order
        found = search_upwards(root, NAME_FILES) if names is None else None
        if names is not None:
            self.own_classes = as_names(names, "label_format")
        elif found is not None:
            self.own_classes = names_in(found)
        self.by_name = bool(self.own_classes)

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        if not sum(size):
            if image is None:
                raise UserError(
                    f"{path} holds shares of the image's size: put LoadImageFromFile before LoadAnnotations"
                )
            size = read_size(image)
        numbered = self.own_classes or tuple(name for name in self.names.classes if name.lower() not in BACKGROUND)
        shapes = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where, parts = f"{path}, line {number}", line.split()
            if not parts:
                continue
            try:
                index, points = int(parts[0]), np.array(parts[1:], np.float64)
            except ValueError as error:
                raise UserError(f"{where}: '{line[:40]}' is not `class x y x y ...` ({error})") from error
            if len(points) < 6 or len(points) % 2:
                kind = "a box" if len(points) == 4 else f"{len(points)} numbers"
                raise UserError(f"{where} is {kind}, not the x and y of at least three points")
            if not 0 <= index < len(numbered):
                raise UserError(f"{where} has class {index}; there are {len(numbered)}: {', '.join(numbered)}")
            outline = points.reshape(-1, 2) * (size[1], size[0])
            shapes.append(Shape(self.names.index(numbered[index], path), polygon(outline, size)))
        return paint(shapes, size, self.names.background, self.order)
