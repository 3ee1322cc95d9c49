"""Convolving maps of several sizes as if they were resized to one size and concatenated, at a lower cost.

A convolution is a sum over the parts of its input and over the taps of its kernel, and mixing channels commutes with
resizing: a small map is multiplied at its own size, and the products are resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from terrazzo.models.layers.conv import ConvBlock
from terrazzo.models.layers.resize import resize
from terrazzo.models.layers.sizes import typical


def fuse_levels(
    block: ConvBlock,
    levels: Sequence[Tensor],
    *,
    like: Tensor | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
) -> Tensor:
    """Apply `block` to all levels (N, C, h, w), resized to `like` (by default the first) and concatenated."""
    conv, like = block.conv, levels[0] if like is None else like
    size = like.shape[2:]
    resized = [saves_work(conv, x, size) and (mode == "bilinear" or conv.kernel_size == (1, 1)) for x in levels]
    if not any(resized):
        return block(torch.cat([resize(x, size, mode=mode, align_corners=align_corners) for x in levels], dim=1))
    weights = conv.weight.split([x.shape[1] for x in levels], dim=1)
    apart = [(x, weight) for x, weight, chosen in zip(levels, weights, resized, strict=True) if chosen]
    if conv.kernel_size == (1, 1):
        products = (F.conv2d(x, weight) for x, weight in apart)
        fused = reduce(torch.add, (resize(x, size, mode=mode, align_corners=align_corners) for x in products))
    else:
        fused = convolve_resized(apart, conv, size, align_corners)
    if len(apart) < len(levels):
        together = [
            (resize(x, size, mode=mode, align_corners=align_corners), weight)
            for x, weight, chosen in zip(levels, weights, resized, strict=True)
            if not chosen
        ]
        x, weight = (torch.cat(parts, dim=1) for parts in zip(*together, strict=True))
        fused = fused + F.conv2d(x, weight, conv.bias, padding=conv.padding, dilation=conv.dilation)
    elif conv.bias is not None:
        fused = fused + conv.bias[:, None, None]
    for layer in (block.norm, block.activate):
        fused = fused if layer is None else layer(fused)
    return fused


def saves_work(conv: _ConvNd, x: Tensor, size: Sequence[int]) -> bool:
    """Return True where convolving a map before it is resized takes less than two thirds of the work."""
    if type(conv) is not nn.Conv2d or conv.groups > 1 or conv.stride != (1, 1) or conv.padding_mode != "zeros":
        return False
    keeps = all(2 * int(conv.padding[axis]) == conv.dilation[axis] * (conv.kernel_size[axis] - 1) for axis in (0, 1))
    open_sizes = not all(isinstance(length, int) for length in (*x.shape[2:], *size))
    if open_sizes and conv.kernel_size != (1, 1):
        return False  # the matrices of an open size would have to be made in the graph
    channels, (height, width), size = x.shape[1], map(typical, x.shape[2:]), [*map(typical, size)]
    products = height * width / (size[0] * size[1])
    matrices = 0.0 if conv.kernel_size == (1, 1) else height * (width / size[0] + 1 / conv.kernel_size[1]) / channels
    return keeps and products + matrices < 0.67


def convolve_resized(
    parts: Sequence[tuple[Tensor, Tensor]], conv: _ConvNd, size: Sequence[int], align_corners: bool
) -> Tensor:
    """Sum `conv` with these weights, without bias, over maps (N, C, h, w) resized to `size`; channels last.

    Each tap of the kernel reads the resized map elsewhere: its products are resized by separate matrices.
    """
    height, width = conv.kernel_size
    # for each map and row of the kernel: the matrix that resizes rows, and the products with resized columns
    matrices: list[Tensor] = []
    bands: list[Tensor] = []
    for x, weight in parts:
        matrices += interpolations(x, size, 0, conv, align_corners).unbind()
        columns = interpolations(x, size, 1, conv, align_corners).permute(1, 2, 0).flatten(1)  # W, w * width
        for row in range(height):
            taps = weight[:, :, row].permute(2, 0, 1).flatten(0, 1)  # width * K, C
            products = F.conv2d(x, taps[:, :, None, None]).permute(0, 2, 3, 1)  # N, h, w, width * K
            bands.append((columns @ products.unflatten(3, (width, -1)).flatten(2, 3)).flatten(2))  # N, h, W * K
    output = torch.cat(matrices, dim=1) @ torch.cat(bands, dim=1)  # N, H, W * K
    return output.unflatten(2, (size[1], -1)).permute(0, 3, 1, 2)


def interpolations(x: Tensor, size: Sequence[int], axis: int, conv: _ConvNd, align_corners: bool) -> Tensor:
    """Return for each tap of the kernel along an axis the matrix from that side of `x` to what the tap reads.

    (kernel size, target, source); zero where it reads padding.
    """
    unit = torch.eye(x.shape[2 + axis], device=x.device).unsqueeze(0)
    matrix = F.interpolate(unit, size[axis], mode="linear", align_corners=align_corners)[0].T.to(x.dtype)
    padding, dilation = int(conv.padding[axis]), conv.dilation[axis]
    padded = F.pad(matrix, (0, 0, padding, padding))
    return torch.stack([padded[tap * dilation :][: size[axis]] for tap in range(conv.kernel_size[axis])])
