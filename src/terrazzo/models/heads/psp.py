"""Pyramid pooling heads: PSPNet and UPerNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers.fuse import fuse_levels
from terrazzo.registry import MODELS


@MODELS.register
class PSPHead(DecodeHead):
    """PSPNet head (Zhao et al., CVPR 2017): pool on several grids, upsample, fuse."""

    def __init__(self, *, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = self.in_channels if isinstance(self.in_channels, int) else self.in_channels[-1]
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), self.conv_block(width, self.channels, 1)) for grid in pool_scales
        )
        self.bottleneck = self.conv_block(width + len(pool_scales) * self.channels, self.channels, 3, padding=1)

    def pool(self, x: Tensor) -> Tensor:
        """A map with its context: (N, in_channels, h, w) -> (N, channels, h, w)."""
        context = [pool(x) for pool in self.psp_modules]
        return fuse_levels(self.bottleneck, [x, *context], align_corners=self.align_corners)

    def features(self, inputs: Features) -> Tensor:
        return self.pool(self.select(inputs))
