"""Dense prediction transformer head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS

READOUTS = ("ignore", "add", "project")


class ReassembleBlocks(nn.Module):
    """Pairs (map, class token) of four layers -> maps at strides 4, 8, 16 and 32; `readout_type` decides how the
    class token is used."""

    def __init__(self, in_channels: int, channels: Sequence[int], readout_type: str) -> None:
        super().__init__()
        if readout_type not in READOUTS:
            raise UserError(f"DPTHead: readout_type '{readout_type}' is unknown: use one of {', '.join(READOUTS)}")
        self.readout_type = readout_type
        self.projects = nn.ModuleList(ConvBlock(in_channels, width, 1, act_cfg=None) for width in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        if readout_type == "project":
            self.readout_projects = nn.ModuleList(
                nn.Sequential(nn.Linear(2 * in_channels, in_channels), nn.GELU()) for _ in channels
            )

    def read_out(self, index: int, x: Tensor, token: Tensor) -> Tensor:
        """Merge the class token (N, C) into the map (N, C, h, w)."""
        if self.readout_type == "ignore":
            return x
        token = token[:, :, None, None].expand_as(x)
        if self.readout_type == "add":
            return x + token
        both = torch.cat([x, token], dim=1).movedim(1, -1)
        return self.readout_projects[index](both).movedim(-1, 1)

    def forward(self, inputs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        maps = [self.read_out(index, *pair) for index, pair in enumerate(inputs)]
        return [
            rescale(project(x)) for rescale, project, x in zip(self.resize_layers, self.projects, maps, strict=True)
        ]


class ResidualConvUnit(nn.Module):
    """Two convolutions, each after its activation, and a shortcut."""

    def __init__(self, channels: int, norm_cfg: Spec | None, act_cfg: Spec) -> None:
        super().__init__()
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg, "inplace": False, "order": ("act", "conv", "norm")}
        self.conv1 = ConvBlock(channels, channels, 3, padding=1, bias=False, **style)
        self.conv2 = ConvBlock(channels, channels, 3, padding=1, bias=False, **style)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class FeatureFusionBlock(nn.Module):
    """Add a level to the coarser ones, refine, double the size; the coarsest block adds nothing."""

    def __init__(self, channels: int, norm_cfg: Spec | None, act_cfg: Spec, *, coarsest: bool) -> None:
        super().__init__()
        self.project = ConvBlock(channels, channels, 1, act_cfg=None)
        self.res_conv_unit1 = None if coarsest else ResidualConvUnit(channels, norm_cfg, act_cfg)
        self.res_conv_unit2 = ResidualConvUnit(channels, norm_cfg, act_cfg)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        if self.res_conv_unit1 is not None and level is not None:
            x = x + self.res_conv_unit1(resize(level, like=x))
        x = resize(self.res_conv_unit2(x), scale_factor=2, align_corners=True)
        return self.project(x)


@MODELS.register
class DPTHead(DecodeHead):
    """DPT head (Ranftl et al., ICCV 2021) on pairs (map, class token) of a plain vision transformer.

    `expand_channels` multiplies `post_process_channels` by 1, 2, 4 and 8. Raises UserError for an unknown
    `readout_type`.
    """

    def __init__(
        self,
        *,
        embed_dims: int = 768,
        post_process_channels: Sequence[int] = (96, 192, 384, 768),
        readout_type: str = "ignore",
        expand_channels: bool = False,
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        norm_cfg: Spec | None = {"type": "BN"},  # noqa: B006 - never written to
        **kwargs: Any,
    ) -> None:
        super().__init__(act_cfg=act_cfg, norm_cfg=norm_cfg, **({"input_transform": "multiple_select"} | kwargs))
        widths = [width * 2**index if expand_channels else width for index, width in enumerate(post_process_channels)]
        self.reassemble_blocks = ReassembleBlocks(embed_dims, widths, readout_type)
        self.convs = nn.ModuleList(
            self.conv_block(width, self.channels, 3, padding=1, bias=False, norm_cfg=None, act_cfg=None)
            for width in widths
        )
        self.fusion_blocks = nn.ModuleList(
            FeatureFusionBlock(self.channels, norm_cfg, act_cfg, coarsest=index == 0) for index in range(len(widths))
        )
        self.project = self.conv_block(self.channels, self.channels, 3, padding=1)

    def features(self, inputs: Features) -> Tensor:
        """Pairs (map, class token) -> (N, channels, h, w)."""
        levels = self.reassemble_blocks(self.select(inputs))
        *finer, coarsest = [conv(x) for conv, x in zip(self.convs, levels, strict=True)]
        first, *blocks = self.fusion_blocks
        x = first(coarsest)
        for block, level in zip(blocks, reversed(finer), strict=True):
            x = block(x, level)
        return self.project(x)
