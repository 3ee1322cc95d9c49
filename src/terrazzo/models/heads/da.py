"""Dual attention head."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers.self_attention import MapAttention, Scale
from terrazzo.registry import MODELS


class PositionAttention(MapAttention):
    """Each position reads all others."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            key=nn.Conv2d(in_channels, channels, 1),
            query=nn.Conv2d(in_channels, channels, 1),
            value=nn.Conv2d(in_channels, in_channels, 1),
            scale=1.0,
        )
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma(self.read(x, x)) + x


class ChannelAttention(nn.Module):
    """Each channel reads the channels least like it."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        channels = x.flatten(2).unsqueeze(1)  # N, 1, C, H * W
        read = F.scaled_dot_product_attention(-channels, channels, channels, scale=1.0)
        return self.gamma(read.view_as(x)) + x


@MODELS.register
class DAHead(DecodeHead):
    """DANet head (Fu et al., CVPR 2019): position and channel attention side by side, each with its own loss."""

    def __init__(self, *, pam_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pam_in_conv = self.conv_block(self.in_channels, self.channels, 3, padding=1)
        self.pam = PositionAttention(self.channels, pam_channels)
        self.pam_out_conv = self.conv_block(self.channels, self.channels, 3, padding=1)
        self.pam_conv_seg = nn.Conv2d(self.channels, self.out_channels, 1)
        self.cam_in_conv = self.conv_block(self.in_channels, self.channels, 3, padding=1)
        self.cam = ChannelAttention()
        self.cam_out_conv = self.conv_block(self.channels, self.channels, 3, padding=1)
        self.cam_conv_seg = nn.Conv2d(self.channels, self.out_channels, 1)

    def branches(self, inputs: Features) -> tuple[Tensor, Tensor]:
        """The maps (N, channels, H, W) after position and after channel attention."""
        x = self.select(inputs)
        position = self.pam_out_conv(self.pam(self.pam_in_conv(x)))
        channel = self.cam_out_conv(self.cam(self.cam_in_conv(x)))
        return position, channel

    def features(self, inputs: Features) -> Tensor:
        position, channel = self.branches(inputs)
        return position + channel

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        position, channel = self.branches(inputs)
        drop = self.dropout or nn.Identity()
        outputs = {
            "pam_cam": self.classify(position + channel),
            "pam": self.pam_conv_seg(drop(position)),
            "cam": self.cam_conv_seg(drop(channel)),
        }
        return {
            f"{branch}.{name}": value
            for branch, logits in outputs.items()
            for name, value in self.losses(logits, labels).items()
        }
