"""UPerNet head (Xiao et al., ECCV 2018): a pooling pyramid on the coarsest map, then a feature pyramid, fused."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.psp import PSPHead
from terrazzo.models.layers.fuse import fuse_levels
from terrazzo.registry import MODELS


@MODELS.register
class UPerHead(PSPHead):
    """UPerNet head (Xiao et al., ECCV 2018): a pooling pyramid on the coarsest map, then a feature pyramid, fused."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        finer = self.in_channels[:-1]
        self.lateral_convs = nn.ModuleList(self.conv_block(width, self.channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(self.conv_block(self.channels, self.channels, 3, padding=1) for _ in finer)
        self.fpn_bottleneck = self.conv_block(len(self.in_channels) * self.channels, self.channels, 3, padding=1)

    def features(self, inputs: Features) -> Tensor:
        *finer, coarsest = self.select(inputs)
        maps = [self.pool(coarsest)]
        for x, lateral in zip(reversed(finer), reversed(self.lateral_convs), strict=True):  # top-down
            x = lateral(x)
            maps.insert(0, x + self.resize(maps[0], like=x))
        maps[:-1] = [conv(x) for conv, x in zip(self.fpn_convs, maps[:-1], strict=True)]
        return fuse_levels(self.fpn_bottleneck, maps, align_corners=self.align_corners)
