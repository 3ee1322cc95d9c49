"""The windows that cover an image, and the mean of what a model gives for them. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from terrazzo.system.arithmetic import ceil_div

Window = tuple[slice, slice]  # rows, columns


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """The starts of windows of `crop` that cover `length` in steps of `stride`; the last one ends at the border."""
    count = max(0, ceil_div(length - crop, stride)) + 1
    return [max(0, min(index * stride, length - crop)) for index in range(count)]


def window_grid(size: Sequence[int], crop_size: Sequence[int], stride: Sequence[int]) -> list[Window]:
    """The windows of an image of `size`, row by row; none is larger than the image. All sizes are (height, width)."""
    rows, columns = (
        [slice(start, min(start + crop, length)) for start in window_starts(length, min(crop, length), step)]
        for length, crop, step in zip(size, crop_size, stride, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def gaussian_weights(length: int) -> np.ndarray:
    """Weights (length) along one axis, 1 in the middle; the deviation is an eighth (Isensee et al., 2021)."""
    return np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / (length / 8)) ** 2).astype(np.float32)


def gaussian_window(height: int, width: int) -> np.ndarray:
    """Weights (height, width) of a window."""
    return gaussian_weights(height)[:, None] * gaussian_weights(width)


def blend_windows(
    run: Callable[[Sequence[Window]], Iterable[Any]],
    size: Sequence[int],
    crop_size: Sequence[int],
    stride: Sequence[int],
    *,
    gaussian: bool = False,
    windows_at_once: int = 1,
    convert: Callable[[np.ndarray], Any] = lambda array: array,
) -> Any:
    """Logits (N, K, H, W) of an image of `size`: the mean over overlapping windows, with `gaussian` a weighted one.

    `run` gives the logits (N, K, h, w) of each of some windows, `windows_at_once` or fewer. They may be tensors, where
    `convert` makes one from an array.
    """
    windows = window_grid(size, crop_size, stride)
    height, width = (edge.stop - edge.start for edge in windows[0])
    share = gaussian_window(height, width) if gaussian else np.ones((height, width), np.float32)
    visits = np.zeros(tuple(size), np.float32)
    for window in windows:
        visits[window] += share
    weight, total = convert(share), None
    for first in range(0, len(windows), windows_at_once):
        group = windows[first : first + windows_at_once]
        for (rows, columns), part in zip(group, run(group), strict=True):
            if total is None:
                total = convert(np.zeros((*part.shape[:2], *size), np.float32))
            total[..., rows, columns] += part * weight if gaussian else part
    assert total is not None
    total /= convert(visits)
    return total
