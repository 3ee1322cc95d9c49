"""Labelme's files: one JSON file for each image."""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.formats.base import LABEL_FORMATS, LabelFormat, read_json
from terrazzo.transforms.formats.raster import Patch, Shape, check_order, disc, paint, polygon


@LABEL_FORMATS.register(name="labelme")
class LabelmeLabels(LabelFormat):
    """Polygons, rectangles, circles and masks, later ones over earlier ones, or with `order: area` smaller over larger.

    A shape labelled `_background_` cuts a hole; the pixels of one labelled `__ignore__` are ignored.
    """

    suffixes = (".json",)

    def __init__(self, root: Path, order: str = "file") -> None:
        check_order(order)
        self.order = order

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        content = read_json(path)
        try:
            own = (int(content["imageHeight"]), int(content["imageWidth"]))
            shapes = [
                Shape(self.names.index(str(shape["label"]), path), patch_of(shape, own, f"{path}, shape {number}"))
                for number, shape in enumerate(content["shapes"], 1)
            ]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is not a Labelme file with shapes and the image's size ({error!r})") from error
        return paint(shapes, own, self.names.background, self.order)


def patch_of(shape: dict[str, Any], size: tuple[int, int], where: str) -> Patch:
    """The pixels of a shape. Raises UserError for one without an area."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "polygon" and len(points) > 2:
        return polygon(points, size)
    if kind == "rectangle":
        (left, top), (right, bottom) = points[0], points[-1] if len(points) == 2 else points[2]
        return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], size)
    if kind == "circle":
        return disc(points[0], math.dist(points[0], points[1]), size)
    if kind == "mask":
        return pasted_mask(shape, size, where)
    raise UserError(
        f"{where} ('{shape['label']}') is a {kind} of {len(points)} points, which covers no area: remove it"
    )


def pasted_mask(shape: dict[str, Any], size: tuple[int, int], where: str) -> Patch:
    """The pixels of a mask drawn by hand or by a model, a PNG placed at the corner of its box."""
    try:
        data = base64.b64decode(shape["mask"], validate=True)
    except binascii.Error as error:
        raise UserError(f"{where} has a damaged mask ({error})") from error
    mask = decode_image(data, "grayscale_ignore_orientation", name=where)[..., 0] > 0
    left, top = (round(number) for number in shape["points"][0])
    return Patch(top, left, mask[: size[0] - top, : size[1] - left])
