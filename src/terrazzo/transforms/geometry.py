"""Geometry of arrays of (H, W) or (H, W, C): resizing, cropping, flipping, padding and rotating."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from terrazzo.errors import UserError

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
CV2_TYPES = tuple(map(np.dtype, ("uint8", "uint16", "int16", "float32", "float64")))
FLIPS = {"horizontal": 1, "vertical": 0, "diagonal": -1}  # OpenCV's codes
Box = tuple[int, int, int, int]  # top, left, bottom, right
WARPING_COST = 3  # a pixel's affine warp in units of its resize
MISALIGNMENT = 1 / 64  # of a source pixel, as much as an affine warp's coordinates are rounded by


def interpolation_code(name: str) -> int:
    """Return OpenCV's number for an interpolation. Raises UserError for an unknown name."""
    if name not in INTERPOLATIONS:
        raise UserError(f"interpolation '{name}' is not one of {', '.join(INTERPOLATIONS)}")
    return INTERPOLATIONS[name]


def scaled_length(length: float, factor: float) -> int:
    """Return a length times a factor, rounded half up, and at least 1."""
    return max(1, int(length * factor + 0.5))


def fitted_size(height: int, width: int, scale: Sequence[float]) -> tuple[int, int]:
    """Return (width, height) of the largest copy of an image that fits the longer and the shorter edge of `scale`."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return scaled_length(width, factor), scaled_length(height, factor)


def resize(array: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear") -> np.ndarray:
    """Resample to `size`, which is (width, height)."""
    height, width = array.shape[:2]
    if (width, height) == tuple(size):
        return array
    if array.dtype not in CV2_TYPES:
        if interpolation == "nearest":
            return nearest_crop(array, size, (0, 0, size[1], size[0]))
        array = array.astype(np.float32)
    return cv2.resize(array, tuple(size), interpolation=interpolation_code(interpolation)).reshape(
        size[1], size[0], *array.shape[2:]
    )


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """Return a view of the rectangle `box`."""
    top, left, bottom, right = box
    return array[top:bottom, left:right]


def nearest_crop(array: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """`crop(resize(array, size, "nearest"), box)` without making the resized array; any dtype."""
    top, left, bottom, right = box
    rows = _nearest_indices(array.shape[0], size[1], top, bottom)
    columns = _nearest_indices(array.shape[1], size[0], left, right)
    if rows[-1] - rows[0] < len(rows):  # enlarged: columns first, of fewer rows
        return array[rows[0] : rows[-1] + 1].take(columns, axis=1, mode="wrap").take(rows - rows[0], axis=0)
    return array.take(rows, axis=0).take(columns, axis=1, mode="wrap")  # "wrap" is faster than a check of bounds


def _nearest_indices(source: int, target: int, start: int, stop: int) -> np.ndarray:
    step = 1.0 / (target / source)  # in OpenCV's order of operations, to round as it does
    return np.minimum(np.floor(np.arange(start, stop) * step).astype(np.int64), source - 1)


def resize_crop(array: np.ndarray, size: tuple[int, int], box: Box, interpolation: str = "bilinear") -> np.ndarray:
    """`crop(resize(array, size), box)`, resampling little more than the crop; uint8 differs by a level, seldom two."""
    height, width = array.shape[:2]
    top, left, bottom, right = box
    if (width, height) == tuple(size):
        return crop(array, box)
    if interpolation == "nearest":
        return nearest_crop(array, size, box)
    if interpolation != "bilinear" or array.dtype not in CV2_TYPES:
        return crop(resize(array, size, interpolation), box)
    first_row, source_top = _grid_start(top, height / size[1])
    first_column, source_left = _grid_start(left, width / size[0])
    if (bottom - first_row) * (right - first_column) > WARPING_COST * (bottom - top) * (right - left):
        return _warp_crop(array, size, box)
    source = array[
        source_top : int((bottom + 1) * height / size[1]) + 2, source_left : int((right + 1) * width / size[0]) + 2
    ]
    factors = {"fx": size[0] / width, "fy": size[1] / height}
    resized = cv2.resize(source, None, **factors, interpolation=cv2.INTER_LINEAR)
    inner = (top - first_row, left - first_column, bottom - first_row, right - first_column)
    return crop(resized, inner).reshape(bottom - top, right - left, *array.shape[2:])


def _grid_start(start: int, step: float) -> tuple[int, int]:
    """Return the last target position up to `start` that falls on a source pixel's edge, and that source pixel.

    From `start` on, a resize that begins there samples like one of the whole, shifted by less than MISALIGNMENT.
    """
    border = math.ceil(max(0.0, 0.5 / step - 0.5))  # positions whose left neighbour a resize from here does not see
    edges = np.arange(max(0, start - border), -1, -1) * step
    aligned = np.abs(edges - np.rint(edges)) <= MISALIGNMENT
    before = int(aligned.argmax())
    return max(0, start - border) - before, round(edges[before])


def _warp_crop(array: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    top, left, bottom, right = box
    x_step, y_step = array.shape[1] / size[0], array.shape[0] / size[1]
    matrix = np.array([[x_step, 0, (left + 0.5) * x_step - 0.5], [0, y_step, (top + 0.5) * y_step - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return warp(array, matrix, (right - left, bottom - top), flags, cv2.BORDER_REPLICATE)


def warp(
    array: np.ndarray, matrix: np.ndarray, size: tuple[int, int], flags: int, border: int, fill: float = 0
) -> np.ndarray:
    """Apply cv2.warpAffine to any number of channels and any dtype; `size` is (width, height)."""

    def warp_some(part: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(part, matrix, size, flags=flags, borderMode=border, borderValue=(fill,) * 4)

    source = array if array.dtype in CV2_TYPES else array.astype(np.float64)  # exact for labels below 2 ** 53
    if array.ndim == 2 or array.shape[2] <= 4:  # as many channels as OpenCV warps at once
        warped = warp_some(source)
    else:
        warped = np.stack([warp_some(np.ascontiguousarray(band)) for band in np.moveaxis(source, -1, 0)], axis=-1)
    return warped.reshape(size[1], size[0], *array.shape[2:]).astype(array.dtype, copy=False)


def flip(array: np.ndarray, direction: str) -> np.ndarray:
    """Mirror an array: `horizontal`, `vertical`, or `diagonal` (both)."""
    if array.dtype in CV2_TYPES:
        return cv2.flip(array, FLIPS[direction]).reshape(array.shape)
    array = array if direction == "horizontal" else array[::-1]
    return np.ascontiguousarray(array if direction == "vertical" else array[:, ::-1])


def pad(
    array: np.ndarray,
    size: tuple[int, int],
    fill: float | Sequence[float] = 0,
    mode: str = "constant",
    offset: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Enlarge to `size` = (width, height) with the array at `offset` = (left, top); never shrinks.

    `fill` is one value or one a channel; `mode` may also be `edge`, `reflect` or `symmetric`.
    """
    height, width = array.shape[:2]
    left, top = offset
    target_width, target_height = max(size[0], width + left), max(size[1], height + top)
    if (target_width, target_height) == (width, height):
        return array
    if mode != "constant":
        borders = [(top, target_height - height - top), (left, target_width - width - left)]
        return np.pad(array, borders + [(0, 0)] * (array.ndim - 2), mode=mode)  # type: ignore[call-overload]
    padded = np.empty((target_height, target_width, *array.shape[2:]), array.dtype)
    padded[...] = np.asarray(fill, array.dtype)
    padded[top : top + height, left : left + width] = array
    return padded


def rotate(
    array: np.ndarray,
    interpolation: str,
    fill: float,
    angle: float,
    center: Sequence[float] | None = None,
    auto_bound: bool = False,
) -> np.ndarray:
    """Turn clockwise by `angle` degrees about `center` (x, y); `auto_bound` enlarges the result to hold everything."""
    height, width = array.shape[:2]
    middle = ((width - 1) * 0.5, (height - 1) * 0.5) if center is None else (float(center[0]), float(center[1]))
    matrix = cv2.getRotationMatrix2D(middle, -angle, 1.0)
    size = (width, height)
    if auto_bound:
        cosine, sine = np.abs(matrix[0, :2])
        wide, high = height * sine + width * cosine, height * cosine + width * sine
        matrix[:, 2] += (wide - width) * 0.5, (high - height) * 0.5
        size = (int(np.round(wide)), int(np.round(high)))
    return warp(array, matrix, size, interpolation_code(interpolation), cv2.BORDER_CONSTANT, fill)
