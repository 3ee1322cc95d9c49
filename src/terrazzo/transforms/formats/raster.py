"""From outlines and run lengths to pixels.

A pixel in column c and row r covers x from c to c + 1 and y from r to r + 1; it belongs to the shape that
contains its middle, so that shapes with a common border neither overlap nor leave a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from terrazzo.errors import UserError

ORDERS = ("area", "file")


class Patch(NamedTuple):
    """A mask (h, w) whose corner is at row `top` and column `left` of the image."""

    top: int
    left: int
    mask: np.ndarray


class Shape(NamedTuple):
    """A class and the pixels that it covers."""

    class_index: int
    patch: Patch


def check_order(order: str) -> None:
    """Raise UserError for an unknown order of painting."""
    if order not in ORDERS:
        raise UserError(f"label_format: order is 'area' (small shapes above large ones) or 'file', not {order!r}")


def paint(shapes: Sequence[Shape], size: tuple[int, int], background: int, order: str) -> np.ndarray:
    """The class map (H, W) of shapes laid one over the other: the last one of the file on top, or the smallest."""
    label = np.full(size, background, np.uint8)
    if order == "area":
        shapes = sorted(shapes, key=lambda shape: -int(shape.patch.mask.sum()))
    for index, (top, left, mask) in shapes:
        height, width = mask.shape
        label[top : top + height, left : left + width][mask] = index
    return label


def polygon(points: Any, size: tuple[int, int]) -> Patch:
    """The pixels inside a closed line through `points` (x, y), by the even-odd rule; cut to the image's size.

    Raises ValueError for fewer than three points.
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2) - 0.5  # the middle of a pixel is at whole numbers
    if len(corners) < 3:
        raise ValueError(f"an outline of {len(corners)} points has no area")
    height, width = size
    first = np.ceil(corners.min(axis=0)).astype(int).clip(0, (width, height))
    last = np.ceil(corners.max(axis=0)).astype(int).clip(first, (width, height))
    (left, top), (columns, rows) = first, last - first
    start, end = corners, np.roll(corners, -1, axis=0)
    low = np.ceil(np.minimum(start[:, 1], end[:, 1])).astype(int).clip(top, top + rows)
    high = np.ceil(np.maximum(start[:, 1], end[:, 1])).astype(int).clip(top, top + rows)
    edge = np.repeat(np.arange(len(corners)), high - low)  # one entry for each row that an edge crosses
    row = np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high, high - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    x = start[edge, 0] + (row - start[edge, 1]) * slope[edge]
    column = np.ceil(x).astype(int).clip(left, left + columns) - left
    crossings = np.bincount((row - top) * (columns + 1) + column, minlength=rows * (columns + 1))
    inside = np.cumsum(crossings.reshape(rows, columns + 1), axis=1)[:, :columns] % 2 == 1
    return Patch(int(top), int(left), inside)


def rings(outlines: Sequence[Any], size: tuple[int, int], holes: bool = True) -> Patch:
    """The pixels of one thing of several outlines; one that is entirely inside the others is a hole if `holes`."""
    mask = np.zeros(size, bool)
    patches = [polygon(outline, size) for outline in outlines]
    for top, left, part in sorted(patches, key=lambda patch: -int(patch.mask.sum())):
        region = mask[top : top + part.shape[0], left : left + part.shape[1]]
        if holes and part.any() and region[part].all():
            region[part] = False
        else:
            region |= part
    return Patch(0, 0, mask)


def disc(centre: Sequence[float], radius: float, size: tuple[int, int]) -> Patch:
    """The pixels no further than `radius` from (x, y)."""
    y, x = np.ogrid[: size[0], : size[1]]
    return Patch(0, 0, (x + 0.5 - centre[0]) ** 2 + (y + 0.5 - centre[1]) ** 2 <= radius**2)


def run_lengths(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """A mask (H, W) from COCO's run lengths, which alternate between 0 and 1 down the columns.

    As text, each is in 5-bit groups, lowest first, and from the third on a difference from the run two before.
    """
    runs = list(counts) if not isinstance(counts, str) else []
    if isinstance(counts, str):
        value = shift = 0
        for letter in counts:
            group = ord(letter) - 48
            value |= (group & 0x1F) << shift
            shift += 5
            if not group & 0x20:  # the last group of this run; its 5th bit is the sign
                value -= (group >> 4 & 1) << shift
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
    if any(run < 0 for run in runs):
        raise UserError("a mask has run lengths below zero: the file is damaged")
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    if mask.size != height * width:
        raise UserError(f"a mask of {height}x{width} pixels has run lengths for {mask.size}: the file is damaged")
    return mask.reshape(width, height).T
