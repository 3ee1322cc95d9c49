"""Fully convolutional heads: plain, of separable convolutions, and STDC's detail guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.registry import MODELS


@MODELS.register
class FCNHead(DecodeHead):
    """A few convolutions (Long et al., CVPR 2015), with `concat_input` fused with their input; most auxiliary heads."""

    def __init__(
        self, *, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True, dilation: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        widths = [self.in_channels, *[self.channels] * (num_convs - 1)][:num_convs]
        padding = kernel_size // 2
        self.convs = nn.Sequential(
            *[
                self.layer(width, kernel_size=kernel_size, padding=padding * dilation, dilation=dilation)
                for width in widths
            ]
        )
        self.concat_input = concat_input
        if concat_input:
            self.conv_cat = self.layer(self.in_channels + self.channels, kernel_size=kernel_size, padding=padding)

    def layer(self, in_channels: int, **options: Any) -> nn.Module:
        """One of the head's convolutions."""
        return self.conv_block(in_channels, self.channels, **options)

    def convolve(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H, W)."""
        return self.convs(x)

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        features = self.convolve(x)
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return features
