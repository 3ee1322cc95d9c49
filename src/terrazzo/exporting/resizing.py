"""Bilinear resizing of images in a graph, as OpenCV resizes them in training and evaluation: equal to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

UNIT = 2048  # OpenCV's weights of 8-bit images are fractions of this


def resize_image(x: Tensor, size: Sequence[int]) -> Tensor:
    """Images (N, C, H, W) of any type -> the same type at `size` (height, width), either of which may be open."""
    if x.dtype != torch.uint8:
        return F.interpolate(x.float(), tuple(size), mode="bilinear")
    left, right, left_weight, right_weight = taps(x.shape[3], size[1], inside=True)
    x = x.int()
    rows = x[..., left] * left_weight + x[..., right] * right_weight  # N, C, H, width
    rows = rows >> 4
    top, bottom, top_weight, bottom_weight = taps(x.shape[2], size[0], inside=False)
    above = rows[:, :, top] * top_weight[:, None] >> 16
    below = rows[:, :, bottom] * bottom_weight[:, None] >> 16
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
