"""Resizing of feature maps and logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers.sizes import larger, same_sizes, scaled, surely
from terrazzo.system.arithmetic import ceil_div


def resize(
    x: Tensor,
    size: Sequence[int] | None = None,
    *,
    like: Tensor | None = None,
    scale_factor: float | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
) -> Tensor:
    """Resize (N, C, H, W) to `size` (height, width), to the size of `like`, or by `scale_factor`."""
    if like is not None:
        size = like.shape[2:]
    if size is not None and same_sizes(size, x.shape[2:]):
        return x
    corners = align_corners if mode in ("bilinear", "bicubic") else None
    return F.interpolate(x, None if size is None else tuple(size), scale_factor, mode=mode, align_corners=corners)


def resize_by_matrices(x: Tensor, size: Sequence[int], corners: int) -> Tensor:
    """Resize (N, C, H, W) bilinearly to `size`, aligning corners or not (1 or 0), where export leaves both open."""
    rows, columns = (interpolation(*lengths, corners, x) for lengths in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def interpolation(length: int, size: int, corners: int, like: Tensor) -> Tensor:
    """The matrix (size, length) of type and device of `like` that interpolates linearly along an axis."""
    index = torch.arange(size, dtype=like.dtype, device=like.device)
    aligned, centred = index * (length - 1) / larger(size - 1, 1), (index + 0.5) * length / size - 0.5
    position = (aligned * corners + centred * (1 - corners)).clamp(min=0).clamp(max=length - 1)
    return (1 - (position.unsqueeze(1) - torch.arange(length, device=like.device)).abs()).relu()


def at_least(x: Tensor, size: int) -> Tensor:
    """Pad a map (N, C, H, W) with zeros on the right and below where a side is shorter than `size`."""
    height, width = (larger(size - length, 0) for length in x.shape[2:])
    return x if surely(height == 0) and surely(width == 0) else F.pad(x, (0, width, 0, height))


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Pad images (N, C, H, W) with zeros on the right and below to multiples of `divisor`."""
    height, width = (ceil_div(length, divisor) * divisor - length for length in x.shape[2:])
    return x if surely(height == 0) and surely(width == 0) else F.pad(x, (0, width, 0, height))


class Upsample(nn.Module):
    """`resize` as a module: by a factor (the output size is rounded down) or to a size."""

    def __init__(
        self,
        size: Sequence[int] | None = None,
        scale_factor: float | None = None,
        mode: str = "bilinear",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = self.size
        if size is None:
            assert self.scale_factor is not None
            size = [scaled(length, self.scale_factor) for length in x.shape[2:]]
        return resize(x, size, mode=self.mode, align_corners=self.align_corners)
