"""Fully convolutional head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.registry import MODELS


@MODELS.register
class FCNHead(DecodeHead):
    """A few convolutions, their input concatenated where wished (Long et al., CVPR 2015); also most auxiliary heads."""

    def __init__(
        self, *, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True, dilation: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        padding = (kernel_size // 2) * dilation
        self.convs = nn.Sequential(
            *[
                self.conv_block(
                    self.in_channels if index == 0 else self.channels,
                    self.channels,
                    kernel_size,
                    padding=padding,
                    dilation=dilation,
                )
                for index in range(num_convs)
            ]
        )
        self.concat_input = concat_input
        if concat_input:
            self.conv_cat = self.conv_block(
                self.in_channels + self.channels, self.channels, kernel_size, padding=kernel_size // 2
            )

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        features = self.convs(x)
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return features
