"""Labelme's files, and those of programs that write its form: one JSON file for each image."""

from __future__ import annotations

import base64
import math
from typing import Any

from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, box, ellipse, placed, polygon, stroke
from terrazzo.transforms.formats.shapes import ShapeLabels, decode_mask

LINES = ("line", "linestrip")
NO_AREA = ("point", "points")
LEAST_POINTS = {"rectangle": 2, "circle": 2, "mask": 1, "line": 2, "linestrip": 2}  # of other kinds three: polygons


@LABEL_FORMATS.register(name="labelme")
class LabelmeLabels(ShapeLabels):
    """Polygons, rectangles (turned ones too), circles and masks; lines with a `line_width`.

    A shape labelled `_background_` cuts a hole; the pixels of one labelled `__ignore__` are ignored.
    """

    suffixes = (".json",)
    names_classes = True
    unlabelled = "background"

    @classmethod
    def recognises(cls, content: Any) -> bool:
        return isinstance(content, dict) and isinstance(content.get("shapes"), list)

    def size_of(self, content: Any) -> tuple[Any, Any]:
        return content.get("imageHeight"), content.get("imageWidth")

    def objects(self, content: Any) -> Any:
        return content["shapes"]

    def name_of(self, item: Any) -> str:
        return str(item["label"])

    def covers(self, item: Any) -> bool:
        kind = kind_of(item)
        has_points = len(item["points"]) >= LEAST_POINTS.get(kind, 3)
        return has_points and kind not in NO_AREA and (kind not in LINES or self.line_width > 0)

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        kind, points = kind_of(item), item["points"]
        if kind in LINES:
            return stroke(points, self.line_width, size)
        if kind == "rectangle" and len(points) == 2:
            return box(points[0], points[1], size)
        if kind == "circle":
            radius = math.dist(points[0], points[1])
            return ellipse(points[0], (radius, radius), 0, size)
        if kind == "mask":
            data = base64.b64decode(item["mask"], validate=True)
            mask = decode_mask(data, "grayscale_ignore_orientation", size)[..., 0] > 0
            return placed(mask, points[0], size)
        return polygon(points, size)


def kind_of(item: Any) -> str:
    """The kind of a shape."""
    return item.get("shape_type") or "polygon"
