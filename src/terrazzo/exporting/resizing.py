"""Bilinear resizing of images in a graph, as OpenCV resizes them in training and evaluation: equal to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.layers.sizes import larger

UNIT = 2048  # OpenCV's weights of 8-bit images are fractions of this


def resize_image(x: Tensor, size: Sequence[int]) -> Tensor:
    """Images (N, C, H, W) of any type -> the same type at `size` (height, width), either of which may be open."""
    if x.dtype != torch.uint8:
        return F.interpolate(x.float(), tuple(size), mode="bilinear")
    left, right, left_weight, right_weight = taps(x.shape[3], size[1], inside=True)
    x = x.int()
    rows = x.index_select(3, left) * left_weight + x.index_select(3, right) * right_weight  # N, C, H, width
    rows = rows >> 4
    top, bottom, top_weight, bottom_weight = taps(x.shape[2], size[0], inside=False)
    above = rows.index_select(2, top) * top_weight[:, None] >> 16
    below = rows.index_select(2, bottom) * bottom_weight[:, None] >> 16
    return (above + below + 2 >> 2).to(torch.uint8)


def taps(length: int, size: int, *, inside: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each position of a resized axis its two source positions, and their weights as int32 fractions of UNIT.

    Beyond the border both are the outermost line; with `inside` it alone has weight.
    """
    target = torch.arange(size)
    position = ((2 * target + 1) * length - size).float() / (2 * size)
    position = position.clamp(0, length - 1) if inside else position
    first = position.floor()
    share = position - first
    weights = ((1 - share) * UNIT).round().int(), (share * UNIT).round().int()
    first = first.long()
    return first.clamp(0, length - 1), (first + 1).clamp(0, length - 1), *weights


def mirrored(x: Tensor) -> Tensor:
    """Images (N, C, H, W) from right to left, as runtimes do fastest."""
    return x.index_select(3, torch.arange(x.shape[3] - 1, -1, -1))


def resize_twice(
    logits: Tensor, first: Sequence[int], kept: Sequence[int], second: Sequence[int], align_corners: bool
) -> Tensor:
    """Logits (N, K, h, w) resized to `first`, cut to `kept` and resized to `second`, each (height, width), in one go.

    The first time with `align_corners`, the second without.
    """
    rows, columns = (
        bilinear(kept[axis], second[axis]) @ bilinear(logits.shape[2 + axis], first[axis], align_corners)[: kept[axis]]
        for axis in (0, 1)
    )
    return rows @ (logits @ columns.T)


def bilinear(length: int, size: int, align_corners: bool = False) -> Tensor:
    """The matrix (size, length) of bilinear resizing along one axis."""
    target = torch.arange(size)
    if align_corners:
        position = target * (length - 1) / larger(size - 1, 1)
    else:
        position = ((target + 0.5) * length / size - 0.5).clamp(0, length - 1)
    return (1 - (position[:, None] - torch.arange(length)).abs()).clamp(min=0)
