"""Supervisely's annotations: one JSON file for each image, and a meta.json with the classes."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.system.text import read_json
from terrazzo.transforms.formats.base import LABEL_FORMATS, search_upwards
from terrazzo.transforms.formats.raster import Patch, box, placed, polygon, stroke
from terrazzo.transforms.formats.shapes import ShapeLabels, blaming, decode_mask

META = "meta.json"
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MOST_BYTES = 2**26  # of an object's picture
AREAS = ("polygon", "bitmap", "alpha_mask", "rectangle")


@LABEL_FORMATS.register(name="supervisely")
class SuperviselyLabels(ShapeLabels):
    """Polygons with holes, bitmaps and rectangles; lines with a `line_width`. A.jpg's file is A.jpg.json."""

    suffixes = (*(f"{suffix}.json" for suffix in IMAGES), ".json")
    names_classes = True
    noun = "object"

    def __init__(self, root: Path, order: str = "", line_width: int = 0) -> None:
        super().__init__(root, order, line_width)
        meta = search_upwards(root, [META])
        if meta is not None:
            with blaming(meta):
                self.own_classes = tuple(str(entry["title"]) for entry in read_json(meta)["classes"])

    @classmethod
    def recognises(cls, content: Any) -> bool:
        return isinstance(content, dict) and {"objects", "size"} <= content.keys()

    def size_of(self, content: Any) -> tuple[Any, Any]:
        return content["size"]["height"], content["size"]["width"]

    def objects(self, content: Any) -> Any:
        return content["objects"]

    def name_of(self, item: Any) -> str:
        return str(item["classTitle"])

    def covers(self, item: Any) -> bool:
        return kind_of(item) in AREAS or (kind_of(item) == "line" and self.line_width > 0)

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        kind = kind_of(item)
        if kind in ("bitmap", "alpha_mask"):
            bitmap = item["bitmap"]
            return placed(decoded(bitmap["data"], size), bitmap["origin"], size)
        outline = item["points"]["exterior"]
        if kind == "rectangle":
            return box(outline[0], outline[1], size)
        if kind == "line":
            return stroke(outline, self.line_width, size)
        top, left, mask = polygon(outline, size)
        for hole in item["points"].get("interior") or ():
            inside = np.zeros(size, bool)
            hole_top, hole_left, part = polygon(hole, size)
            inside[hole_top : hole_top + part.shape[0], hole_left : hole_left + part.shape[1]] = part
            mask &= ~inside[top : top + mask.shape[0], left : left + mask.shape[1]]
        return Patch(top, left, mask)


def kind_of(item: Any) -> str:
    """The kind of an object, which old files leave to its fields."""
    return item.get("geometryType") or ("bitmap" if item.get("bitmap") else "polygon")


def decoded(text: str, size: tuple[int, int]) -> np.ndarray:
    """The mask in a PNG, compressed and as text. Raises ValueError for one that is damaged."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text), MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"its bitmap is damaged: {error}") from None
    picture = decode_mask(data, "unchanged", size)
    return (picture[..., 3:] if picture.shape[2] == 4 else picture).max(axis=2) > 0
