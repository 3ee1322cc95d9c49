"""SETR's decoders: progressive upsampling and multi-level aggregation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Spec, Upsample, build_norm
from terrazzo.registry import MODELS


@MODELS.register
class SETRUPHead(DecodeHead):
    """SETR's naive and PUP decoder (Zheng et al., CVPR 2021): layer norm, then convolutions, each upsampled."""

    keeps_specs = ("norm_layer",)

    def __init__(
        self,
        *,
        norm_layer: Spec = {"type": "LN", "eps": 1e-6},  # noqa: B006 - never written to
        num_convs: int = 1,
        up_scale: int = 4,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.norm = build_norm(norm_layer, self.in_channels)
        self.up_convs = nn.ModuleList(
            nn.Sequential(
                self.conv_block(
                    self.in_channels if index == 0 else self.channels,
                    self.channels,
                    kernel_size,
                    padding=kernel_size // 2,
                ),
                Upsample(scale_factor=up_scale, mode="bilinear", align_corners=self.align_corners),
            )
            for index in range(num_convs)
        )

    def features(self, inputs: Features) -> Tensor:
        x = self.norm(self.select(inputs).movedim(1, -1)).movedim(-1, 1)  # over the channels
        for conv in self.up_convs:
            x = conv(x)
        return x


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
