"""SETR's progressive upsampling head."""

from __future__ import annotations

from typing import Any

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
