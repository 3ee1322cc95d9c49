"""MobileNetV3's head (Howard et al., ICCV 2019): the coarse map weighted by a pooled gate, then refined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers.sizes import smaller
from terrazzo.registry import MODELS


class WindowPool(nn.Module):
    """Average pooling in large strided windows, which shrink with a map that is smaller than one."""

    def __init__(self, kernel_size: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (
            window_averages(length, smaller(self.kernel_size, length), stride).to(x)
            for length, stride in zip(x.shape[2:], self.stride, strict=True)
        )
        return rows @ x @ columns.T


def window_averages(length: int, window: int, stride: int) -> Tensor:
    """The matrix (windows, length) whose rows average the windows inside a length, one every `stride`."""
    start = torch.arange(0, length - window + 1, stride)[:, None]
    position = torch.arange(length)
    return ((position >= start) & (position < start + window)) / window


@MODELS.register
class LRASPPHead(DecodeHead):
    """MobileNetV3's head (Howard et al., ICCV 2019): the coarse map weighted by a pooled gate, then refined.

    `branch_channels` are the widths of the finer maps, which are all but the last of the inputs.
    """

    def __init__(self, *, branch_channels: Sequence[int] = (32, 64), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convs = nn.Sequential()
        self.conv_ups = nn.Sequential()
        for index, width in enumerate(branch_channels):
            self.convs.add_module(f"conv{index}", nn.Conv2d(self.in_channels[index], width, 1, bias=False))
            self.conv_ups.add_module(f"conv_up{index}", self.conv_block(self.channels + width, self.channels, 1))
        self.conv_up_input = nn.Conv2d(self.channels, self.channels, 1)
        self.aspp_conv = self.conv_block(self.in_channels[-1], self.channels, 1)
        gate = self.conv_block(
            self.in_channels[-1], self.channels, 1, bias=False, norm_cfg=None, act_cfg={"type": "Sigmoid"}
        )
        self.image_pool = nn.Sequential(WindowPool(49, (16, 20)), gate)

    def features(self, inputs: Features) -> Tensor:
        *finer, x = self.select(inputs)
        features = self.aspp_conv(x)
        x = self.conv_up_input(features * self.resize(self.image_pool(x), like=features))
        for index in reversed(range(len(self.convs))):
            x = self.resize(x, like=finer[index])
            x = self.conv_ups[index](torch.cat([x, self.convs[index](finer[index])], dim=1))
        return x
