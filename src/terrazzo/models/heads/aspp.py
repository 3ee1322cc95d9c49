"""Atrous spatial pyramid pooling heads: DeepLabV3, DeepLabV3+ and MobileNetV3's lite reduced one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import ConvBlock, DepthwiseSeparableConvBlock
from terrazzo.models.layers.fuse import fuse_levels
from terrazzo.registry import MODELS


@MODELS.register
class ASPPHead(DecodeHead):
    """DeepLabV3 head (Chen et al., 2017): parallel dilated convolutions and a pooled branch, fused."""

    def __init__(self, *, dilations: Sequence[int] = (1, 6, 12, 18), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dilations = dilations
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), self.conv_block(self.in_channels, self.channels, 1))
        self.aspp_modules = nn.ModuleList(self.branch(dilation) for dilation in dilations)
        self.bottleneck = self.conv_block((len(dilations) + 1) * self.channels, self.channels, 3, padding=1)

    def branch(self, dilation: int) -> nn.Module:
        """One dilated convolution; dilation 1 is a pointwise one."""
        size = 1 if dilation == 1 else 3
        padding = 0 if dilation == 1 else dilation
        return self.conv_block(self.in_channels, self.channels, size, padding=padding, dilation=dilation)

    def pyramid(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H, W)."""
        levels = [self.image_pool(x), *(branch(x) for branch in self.aspp_modules)]
        return fuse_levels(self.bottleneck, levels, like=x, align_corners=self.align_corners)

    def features(self, inputs: Features) -> Tensor:
        return self.pyramid(self.select(inputs))


@MODELS.register
class DepthwiseSeparableASPPHead(ASPPHead):
    """DeepLabV3+ head (Chen et al., ECCV 2018): a separable pyramid, refined with the backbone's first map."""

    def __init__(self, *, c1_in_channels: int, c1_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.c1_bottleneck: ConvBlock | None = None
        if c1_in_channels > 0:
            self.c1_bottleneck = self.conv_block(c1_in_channels, c1_channels, 1)
        fused = self.channels + (c1_channels if c1_in_channels > 0 else 0)
        self.sep_bottleneck = nn.Sequential(self.separable(fused, padding=1), self.separable(self.channels, padding=1))

    def separable(self, in_channels: int, **options: Any) -> DepthwiseSeparableConvBlock:
        return DepthwiseSeparableConvBlock(
            in_channels, self.channels, 3, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg, **options
        )

    def branch(self, dilation: int) -> nn.Module:
        if dilation == 1:
            return super().branch(dilation)
        return self.separable(self.in_channels, padding=dilation, dilation=dilation)

    def features(self, inputs: Features) -> Tensor:
        x = self.pyramid(self.select(inputs))
        if self.c1_bottleneck is not None:
            detail = self.c1_bottleneck(inputs[0])
            x = torch.cat([self.resize(x, like=detail), detail], dim=1)
        return self.sep_bottleneck(x)
