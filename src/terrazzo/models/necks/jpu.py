"""Joint pyramid upsampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, DepthwiseSeparableConvBlock, Spec, resize
from terrazzo.registry import MODELS


@MODELS.register
class JPU(nn.Module):
    """FastFCN's neck (Wu et al., 2019): the last map of a dilated backbone, from the last maps of an undilated one.

    The maps from `start_level` on are brought to the finest's size and concatenated, and parallel dilated convolutions
    replace the last one; the others pass unchanged.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (512, 1024, 2048),
        mid_channels: int = 512,
        start_level: int = 0,
        end_level: int = -1,
        dilations: Sequence[int] = (1, 2, 4, 8),
        align_corners: bool = False,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec | None = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.levels = range(start_level, len(in_channels) if end_level == -1 else end_level)
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.conv_layers = nn.ModuleList(
            nn.Sequential(ConvBlock(in_channels[level], mid_channels, 3, padding=1, **style)) for level in self.levels
        )
        joint = len(self.levels) * mid_channels
        separable: Spec = {"norm_cfg": norm_cfg, "dw_act_cfg": None, "pw_act_cfg": act_cfg}
        self.dilation_layers = nn.ModuleList(
            nn.Sequential(DepthwiseSeparableConvBlock(joint, mid_channels, 3, padding=rate, dilation=rate, **separable))
            for rate in dilations
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = [conv(inputs[level]) for level, conv in zip(self.levels, self.conv_layers, strict=True)]
        joint = torch.cat([resize(x, like=maps[0], align_corners=self.align_corners) for x in maps], dim=1)
        return (*inputs[:-1], torch.cat([layer(joint) for layer in self.dilation_layers], dim=1))
