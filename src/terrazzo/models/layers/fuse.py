"""Fusing maps of several sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.layers.conv import ConvBlock
from terrazzo.models.layers.resize import resize


def fuse_levels(
    block: ConvBlock, levels: Sequence[Tensor], *, mode: str = "bilinear", align_corners: bool = False
) -> Tensor:
    """What a 1x1 `block` makes of all levels resized to the first and concatenated, at a third of the cost.

    The convolution is a sum over levels, and a 1x1 convolution commutes with resizing: each level is multiplied at its
    own size.
    """
    weights = block.conv.weight.split([level.shape[1] for level in levels], dim=1)
    fused = F.conv2d(levels[0], weights[0], block.conv.bias)
    for level, weight in zip(levels[1:], weights[1:], strict=True):
        fused = fused + resize(F.conv2d(level, weight), like=fused, mode=mode, align_corners=align_corners)
    for layer in (block.norm, block.activate):
        fused = fused if layer is None else layer(fused)
    return fused
