"""Cascade feature fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


class CascadeFeatureFusion(nn.Module):
    """Add a coarse map, upsampled and filtered, to a fine one -> (their sum, the filtered coarse map)."""

    def __init__(
        self, low_channels: int, high_channels: int, out_channels: int, *, align_corners: bool, **style: Any
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv_low = ConvBlock(low_channels, out_channels, 3, padding=2, dilation=2, **style)
        self.conv_high = ConvBlock(high_channels, out_channels, 1, **style)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        low = self.conv_low(resize(low, like=high, align_corners=self.align_corners))
        return F.relu(low + self.conv_high(high)), low


@MODELS.register
class ICNeck(nn.Module):
    """ICNet's cascade feature fusion (Zhao et al., ECCV 2018) -> the coarse, middle and fused map."""

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (64, 256, 256),
        out_channels: int = 128,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        full, half, quarter = in_channels
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg, "align_corners": align_corners}
        self.cff_24 = CascadeFeatureFusion(quarter, half, out_channels, **style)
        self.cff_12 = CascadeFeatureFusion(out_channels, full, out_channels, **style)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        full, half, quarter = inputs
        fused, coarse = self.cff_24(quarter, half)
        fused, middle = self.cff_12(fused, full)
        return coarse, middle, fused
