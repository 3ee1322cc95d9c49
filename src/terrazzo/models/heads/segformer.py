"""SegFormer's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import resize
from terrazzo.registry import MODELS


@MODELS.register
class SegformerHead(DecodeHead):
    """All-MLP head (Xie et al., NeurIPS 2021): bring every level to the same width and size, and fuse.

    The fusing 1x1 convolution of the concatenated levels is a sum over levels, and a 1x1 convolution commutes with
    resizing: each level is multiplied at its own size, which costs a third.
    """

    def __init__(self, *, interpolate_mode: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        self.interpolate_mode = interpolate_mode
        assert isinstance(self.in_channels, Sequence)
        self.convs = nn.ModuleList(self.conv_block(width, self.channels, 1) for width in self.in_channels)
        self.fusion_conv = self.conv_block(self.channels * len(self.in_channels), self.channels, 1)

    def features(self, inputs: Features) -> Tensor:
        levels = [conv(x) for conv, x in zip(self.convs, self.select(inputs), strict=True)]
        weights = self.fusion_conv.conv.weight.split(self.channels, dim=1)
        fused = F.conv2d(levels[0], weights[0], self.fusion_conv.conv.bias)
        for level, weight in zip(levels[1:], weights[1:], strict=True):
            fused = fused + resize(
                F.conv2d(level, weight), like=fused, mode=self.interpolate_mode, align_corners=self.align_corners
            )
        for layer in (self.fusion_conv.norm, self.fusion_conv.activate):
            fused = fused if layer is None else layer(fused)
        return fused
