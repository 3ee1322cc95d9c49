"""Panoptic FPN head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Upsample
from terrazzo.registry import MODELS


@MODELS.register
class FPNHead(DecodeHead):
    """Semantic FPN head (Kirillov et al., CVPR 2019): upsample every level step by step to the finest, and add."""

    def __init__(self, *, feature_strides: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        self.scale_heads = nn.ModuleList(
            nn.Sequential(*self.steps(in_channels, round(math.log2(stride / feature_strides[0]))))
            for in_channels, stride in zip(self.in_channels, feature_strides, strict=True)
        )

    def steps(self, in_channels: int, doublings: int) -> list[nn.Module]:
        """A convolution, then as many doublings as asked for, with convolutions between them."""
        layers: list[nn.Module] = []
        for index in range(max(1, doublings)):
            layers.append(self.conv_block(in_channels if index == 0 else self.channels, self.channels, 3, padding=1))
            if doublings:
                layers.append(Upsample(scale_factor=2, mode="bilinear", align_corners=self.align_corners))
        return layers

    def features(self, inputs: Features) -> Tensor:
        fine, *coarser = [head(x) for head, x in zip(self.scale_heads, self.select(inputs), strict=True)]
        for x in coarser:
            fine = fine + self.resize(x, like=fine)
        return fine
