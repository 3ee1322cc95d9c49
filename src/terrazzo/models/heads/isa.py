"""Interlaced sparse self-attention head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers.self_attention import MapAttention
from terrazzo.registry import MODELS
from terrazzo.system.arithmetic import ceil_div


class Relation(MapAttention):
    """Attention among the positions of each of many small maps."""

    def __init__(self, in_channels: int, channels: int, conv_block: Callable[..., nn.Module]) -> None:
        super().__init__(
            key=nn.Sequential(conv_block(in_channels, channels, 1), conv_block(channels, channels, 1)),
            query=nn.Sequential(conv_block(in_channels, channels, 1), conv_block(channels, channels, 1)),
            value=nn.Conv2d(in_channels, in_channels, 1),
        )
        self.output_project = conv_block(in_channels, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_project(self.read(x, x))


@MODELS.register
class ISAHead(DecodeHead):
    """ISANet head (Huang et al., 2019): attention among positions far apart, then within blocks of `down_factor`."""

    def __init__(self, *, isa_channels: int, down_factor: Sequence[int] = (8, 8), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.down_factor = down_factor
        self.in_conv = self.conv_block(self.in_channels, self.channels, 3, padding=1)
        self.global_relation = Relation(self.channels, isa_channels, self.conv_block)
        self.local_relation = Relation(self.channels, isa_channels, self.conv_block)
        self.out_conv = self.conv_block(2 * self.channels, self.channels, 1)

    def features(self, inputs: Features) -> Tensor:
        x = self.in_conv(self.select(inputs))
        batch, channels, height, width = x.shape
        local_height, local_width = self.down_factor
        rows, columns = ceil_div(height, local_height), ceil_div(width, local_width)  # of blocks
        below, right = rows * local_height - height, columns * local_width - width
        top, left = below // 2, right // 2
        context = F.pad(x, (left, right - left, top, below - top))

        # attention among the same position of every block
        context = context.view(batch, channels, rows, local_height, columns, local_width)
        context = context.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels, rows, columns)
        context = self.global_relation(context)

        # attention within each block
        context = context.view(batch, local_height, local_width, channels, rows, columns)
        context = context.permute(0, 4, 5, 3, 1, 2).reshape(-1, channels, local_height, local_width)
        context = self.local_relation(context)

        # back to one map, without the padding
        context = context.view(batch, rows, columns, channels, local_height, local_width)
        context = context.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * local_height, -1)
        context = context[:, :, top : top + height, left : left + width]
        return self.out_conv(torch.cat([context, x], dim=1))
