"""SegFormer's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers.fuse import fuse_levels
from terrazzo.registry import MODELS


@MODELS.register
class SegformerHead(DecodeHead):
    """All-MLP head (Xie et al., NeurIPS 2021): bring every level to the same width and size, and fuse."""

    def __init__(self, *, interpolate_mode: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        self.interpolate_mode = interpolate_mode
        assert isinstance(self.in_channels, Sequence)
        self.convs = nn.ModuleList(self.conv_block(width, self.channels, 1) for width in self.in_channels)
        self.fusion_conv = self.conv_block(self.channels * len(self.in_channels), self.channels, 1)

    def features(self, inputs: Features) -> Tensor:
        levels = [conv(x) for conv, x in zip(self.convs, self.select(inputs), strict=True)]
        return fuse_levels(self.fusion_conv, levels, mode=self.interpolate_mode, align_corners=self.align_corners)
