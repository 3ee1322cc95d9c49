"""Expectation-maximisation attention head."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.registry import MODELS


class ExpectationMaximisation(nn.Module):
    """Rebuild a map from a few bases that are fitted to it; no gradient goes through.

    In training the starting bases follow the fitted ones of all processes by `momentum`.
    """

    def __init__(self, channels: int, *, num_bases: int, num_stages: int, momentum: float) -> None:
        super().__init__()
        self.num_stages, self.momentum = num_stages, momentum
        bases = torch.randn(1, channels, num_bases) * math.sqrt(2 / num_bases)
        self.register_buffer("bases", F.normalize(bases, dim=1))

    bases: Tensor

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)  # N, C, H * W
        bases = self.bases.expand(x.shape[0], -1, -1)  # N, C, K
        for _ in range(self.num_stages):
            shares = (pixels.transpose(1, 2) @ bases).softmax(2)  # N, H * W, K: expectation
            bases = F.normalize(pixels @ F.normalize(shares, p=1, dim=1), dim=1)  # maximisation
        if self.training:
            self.follow(bases)
        return (bases @ shares.transpose(1, 2)).view_as(x)

    def follow(self, bases: Tensor) -> None:
        mean = bases.mean(0, keepdim=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)  # a sum will do: its length is normalised away
        self.bases.lerp_(F.normalize(mean, dim=1), self.momentum)


@MODELS.register
class EMAHead(DecodeHead):
    """EMANet head (Li et al., ICCV 2019)."""

    def __init__(
        self,
        *,
        ema_channels: int,
        num_bases: int,
        num_stages: int,
        concat_input: bool = True,
        momentum: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.concat_input = concat_input
        self.ema_module = ExpectationMaximisation(
            ema_channels, num_bases=num_bases, num_stages=num_stages, momentum=momentum
        )
        self.ema_in_conv = self.conv_block(self.in_channels, ema_channels, 3, padding=1)
        self.ema_mid_conv = self.conv_block(ema_channels, ema_channels, 1, norm_cfg=None, act_cfg=None)
        self.ema_mid_conv.requires_grad_(False)  # gradients stop at the bases
        self.ema_out_conv = self.conv_block(ema_channels, ema_channels, 1, act_cfg=None)
        self.bottleneck = self.conv_block(ema_channels, self.channels, 3, padding=1)
        if concat_input:
            self.conv_cat = self.conv_block(self.in_channels + self.channels, self.channels, 3, padding=1)

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        reduced = self.ema_in_conv(x)
        rebuilt = self.ema_out_conv(F.relu(self.ema_module(self.ema_mid_conv(reduced))))
        features = self.bottleneck(F.relu(reduced + rebuilt))
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return features
