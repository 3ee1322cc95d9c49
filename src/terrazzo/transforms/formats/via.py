"""The VGG Image Annotator's project (version 2), JSON and CSV exports: one file for many images."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, box, ellipse, polygon, stroke
from terrazzo.transforms.formats.shapes import NAMELESS, IndexLabels

NAMING = ("class", "label", "name", "type", "category", "object")  # attributes that name classes, if there are several


@LABEL_FORMATS.register(name="via")
class ViaLabels(IndexLabels):
    """Polygons, rectangles, circles and ellipses of VIA (Dutta and Zisserman, ACM MM 2019); lines with a `line_width`.

    `attribute` is the regions' attribute that names their class; regions without one are of the class `object`.
    """

    suffixes = (".json", ".csv")
    names_classes = True
    noun = "region"
    about = "a VIA project, JSON or CSV with regions"

    def __init__(self, root: Path, order: str = "", line_width: int = 0, attribute: str = "") -> None:
        self.attribute = attribute
        super().__init__(root, order, line_width)

    @classmethod
    def images(cls, content: Any) -> Mapping[str, Any]:
        if isinstance(content, list):
            return of_rows(content)
        entries = content.get("_via_img_metadata", content).values()
        return {entry["filename"]: as_regions(entry["regions"]) for entry in entries}

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        names, source = super().describe(paths)
        return names, f"{source}, by the regions' attribute '{self.attribute}'"

    def objects(self, content: Any) -> Any:
        return content

    def name_of(self, item: Any) -> str:
        if not self.attribute:
            self.attribute = self.naming_attribute()
        return class_in(item["region_attributes"].get(self.attribute))

    def naming_attribute(self) -> str:
        """The attribute that most regions have, of several one that is called as usual."""
        counts = Counter(
            key for regions in self.labels.values() for region in regions for key in region["region_attributes"]
        )
        usual = [key for word in NAMING for key in counts if word in key.lower()]
        return max(usual or counts, key=counts.__getitem__, default=NAMELESS)

    def covers(self, item: Any) -> bool:
        shape = item["shape_attributes"]
        return bool(shape) and shape["name"] != "point" and (shape["name"] != "polyline" or self.line_width > 0)

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        shape = item["shape_attributes"]
        kind = shape["name"]
        if kind == "rect":
            left, top = shape["x"], shape["y"]
            return box((left, top), (left + shape["width"], top + shape["height"]), size)
        if kind in ("circle", "ellipse"):
            radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
            return ellipse((shape["cx"], shape["cy"]), radii, math.degrees(shape.get("theta") or 0), size)
        points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
        return stroke(points, self.line_width, size) if kind == "polyline" else polygon(points, size)


def as_regions(value: Any) -> list[Any]:
    """The regions of an image, which version 1 numbers in a mapping."""
    return list(value.values() if isinstance(value, Mapping) else value)


def of_rows(rows: list[dict[str, str]]) -> dict[str, list[Any]]:
    """The regions of each image in a CSV, which has a row for each of them, or one without a shape."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        name = row["filename"] if "filename" in row else row["#filename"]
        keys = ("region_shape_attributes", "region_attributes")
        shape, attributes = (json.loads(row[key] or "{}") for key in keys)
        found.setdefault(name, []).append({"shape_attributes": shape, "region_attributes": attributes})
    return found


def class_in(value: Any) -> str:
    """The class in an attribute's value: a text, or the options that are ticked."""
    if isinstance(value, Mapping):
        value = next((option for option, is_ticked in value.items() if is_ticked), None)
    return str(value).strip() or NAMELESS if value is not None else NAMELESS
