"""Rasterization of outlines and run lengths.

A pixel in column c and row r covers x from c to c + 1 and y from r to r + 1; it belongs to a shape that contains its
centre, so that shapes with a common border neither overlap nor leave a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from terrazzo.errors import UserError

ORDERS = ("area", "file")
LONGEST_RUN = 60  # bits
FARTHEST = 1e7  # pixels from an image's corner to a point of an outline; beyond, the file is damaged


class Patch(NamedTuple):
    """A mask (h, w) with its corner at row `top` and column `left` of the image."""

    top: int
    left: int
    mask: np.ndarray


class Shape(NamedTuple):
    """The pixels of an object and its class."""

    class_index: int
    patch: Patch


def check_order(order: str) -> None:
    """Raise UserError for an unknown painting order."""
    if order not in ORDERS:
        raise UserError(f"label_format: order is 'area' (small shapes above large ones) or 'file', not {order!r}")


def paint(shapes: Sequence[Shape], size: tuple[int, int], background: int, order: str) -> np.ndarray:
    """The class map (H, W) of overlapping shapes, with the last one of the file on top, or the smallest."""
    label = np.full(size, background, np.uint8)
    if order == "area":
        shapes = sorted(shapes, key=lambda shape: -int(shape.patch.mask.sum()))
    for class_index, (top, left, mask) in shapes:
        height, width = mask.shape
        label[top : top + height, left : left + width][mask] = class_index
    return label


def polygon(points: Any, size: tuple[int, int]) -> Patch:
    """The pixels inside a closed line through `points` (x, y) by the even-odd rule, clipped to the image.

    Raises ValueError for fewer than three points, and for one that is not a finite number.
    """
    corners = coordinates(points) - 0.5  # pixel centres are at whole numbers
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


def coordinates(points: Any) -> np.ndarray:
    """Points as an array (N, 2) of x and y. Raises ValueError for one that is NaN, infinite or far from any image."""
    array = np.asarray(points, np.float64)
    if array.ndim > 1 and array.shape[-1] != 2:
        raise ValueError(f"points of {array.shape[-1]} numbers, not x and y")
    array = array.reshape(-1, 2)
    for x, y in array[~(np.abs(array) <= FARTHEST).all(axis=1)]:
        raise ValueError(f"a point at x {x:g}, y {y:g}")
    return array


def placed(mask: np.ndarray, corner: Any, size: tuple[int, int]) -> Patch:
    """A mask with its corner at (x, y), clipped to the image. Raises ValueError for a corner that is not a number."""
    ((left, top),) = coordinates(corner).round().astype(int).tolist()
    mask = mask[max(0, -top) : max(0, size[0] - top), max(0, -left) : max(0, size[1] - left)]
    return Patch(min(max(0, top), size[0]), min(max(0, left), size[1]), mask)


def stroke(points: Any, width: int, size: tuple[int, int]) -> Patch:
    """The pixels of an open line, `width` pixels wide."""
    canvas = np.zeros(size, np.uint8)
    corners = np.floor(coordinates(points)).astype(np.int32)
    cv2.polylines(canvas, [corners], isClosed=False, color=1, thickness=width)
    return trimmed(canvas > 0)


def ellipse(centre: Any, radii: Any, degrees: float, size: tuple[int, int]) -> Patch:
    """The pixels of an ellipse about (x, y), turned clockwise in the picture."""
    ((centre_x, centre_y), (radius_x, radius_y)) = coordinates([centre, radii])
    (angle, _), *_ = np.deg2rad(coordinates([degrees, 0]))
    reach = max(radius_x, radius_y) + 1
    left, right = np.clip([centre_x - reach, centre_x + reach], 0, size[1]).astype(int)
    top, bottom = np.clip([centre_y - reach, centre_y + reach], 0, size[0]).astype(int)
    y, x = np.ogrid[top:bottom, left:right]
    x, y = x + 0.5 - centre_x, y + 0.5 - centre_y
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = (along * radius_y) ** 2 + (across * radius_x) ** 2 <= (radius_x * radius_y) ** 2
    return Patch(int(top), int(left), inside)


def box(corner: Any, opposite: Any, size: tuple[int, int]) -> Patch:
    """The pixels of an upright rectangle between two corners (x, y)."""
    (left, top), (right, bottom) = coordinates([corner, opposite])
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], size)


def rings(outlines: Sequence[Any], size: tuple[int, int], holes: bool = True) -> Patch:
    """The pixels of an object with several outlines; with `holes`, one that is wholly inside the others is a hole."""
    mask = np.zeros(size, bool)
    patches = [polygon(outline, size) for outline in outlines]
    for top, left, part in sorted(patches, key=lambda patch: -int(patch.mask.sum())):
        area = mask[top : top + part.shape[0], left : left + part.shape[1]]
        if holes and part.any() and area[part].all():
            area[part] = False
        else:
            area |= part
    return trimmed(mask)


def trimmed(mask: np.ndarray) -> Patch:
    """The part of a mask (H, W) that holds all its pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Patch(0, 0, mask[:0, :0])
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def run_lengths(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """A mask (H, W) from COCO's run lengths, which alternate between 0 and 1 down the columns.

    As text, each is in 5-bit groups, lowest first, and from the third on a difference from the run two before. Raises
    UserError for run lengths of another number of pixels, before memory is taken for them.
    """
    runs = [int(run) for run in counts] if not isinstance(counts, str) else []
    if isinstance(counts, str):
        value = shift = 0
        for letter in counts:
            group = ord(letter) - 48
            value |= (group & 0x1F) << shift
            shift += 5
            if shift > LONGEST_RUN:
                raise UserError("a mask has a run length without an end: the file is damaged")
            if not group & 0x20:  # the last group of this run; its 5th bit is the sign
                value -= (group >> 4 & 1) << shift
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
    if any(run < 0 for run in runs):
        raise UserError("a mask has run lengths below zero: the file is damaged")
    if sum(runs) != height * width:
        raise UserError(f"a mask of {height}x{width} pixels has run lengths for {sum(runs)}: the file is damaged")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def start_lengths(text: str, size: tuple[int, int], by_rows: bool) -> np.ndarray:
    """A mask (H, W) from Kaggle's pairs of a start, counted from 1, and a length, down the columns or along the rows.

    Raises ValueError for an odd number of them, and for a run that does not fit into the image.
    """
    numbers = np.array(text.split(), np.int64)
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    if len(starts) != len(lengths):
        raise ValueError(f"{len(numbers)} numbers are not pairs of a start and a length")
    total = size[0] * size[1]
    outside = (starts < 0) | (lengths < 0) | (starts > total) | (lengths > total - starts)
    if outside.any():
        start, length = starts[outside][0] + 1, lengths[outside][0]
        raise ValueError(f"a run of {length} from {start} does not fit into {size[0]}x{size[1]} pixels")
    changes = np.zeros(total + 1, np.int32)
    np.add.at(changes, starts, 1)
    np.add.at(changes, starts + lengths, -1)
    mask = np.cumsum(changes[:-1]) > 0
    return mask.reshape(size) if by_rows else mask.reshape(size[::-1]).T
