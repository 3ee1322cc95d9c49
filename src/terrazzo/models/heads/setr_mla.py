"""SETR's multi-level aggregation head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Upsample
from terrazzo.registry import MODELS


@MODELS.register
class SETRMLAHead(DecodeHead):
    """SETR-MLA decoder (Zheng et al., CVPR 2021): two convolutions a level, upsampled and concatenated.

    `channels` is the number of levels times `mla_channels`.
    """

    def __init__(self, *, mla_channels: int = 128, up_scale: int = 4, **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        self.up_convs = nn.ModuleList(
            nn.Sequential(
                self.conv_block(in_channels, mla_channels, 3, padding=1),
                self.conv_block(mla_channels, mla_channels, 3, padding=1),
                Upsample(scale_factor=up_scale, mode="bilinear", align_corners=self.align_corners),
            )
            for in_channels in self.in_channels
        )

    def features(self, inputs: Features) -> Tensor:
        return torch.cat([conv(x) for conv, x in zip(self.up_convs, self.select(inputs), strict=True)], dim=1)
