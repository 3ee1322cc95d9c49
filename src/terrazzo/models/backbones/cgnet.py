"""CGNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, build_activation, build_conv, build_norm, maybe_checkpoint
from terrazzo.registry import MODELS


def activation(act_cfg: Spec, channels: int) -> Spec:
    """Return `act_cfg`, with a slope for each channel where it is a PReLU."""
    return act_cfg | {"num_parameters": channels} if act_cfg["type"] == "PReLU" else act_cfg


class NormActivation(nn.Sequential):
    """Norm and activation of a concatenation."""

    def __init__(self, channels: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        super().__init__(build_norm(norm_cfg, channels), build_activation(activation(act_cfg, channels)))


class GlobalContext(nn.Module):
    """Weight each channel by two linear layers on the global averages."""

    def __init__(self, channels: int, reduction: int, *, with_cp: bool) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def scale_channels(self, x: Tensor) -> Tensor:
        return x * self.fc(self.avg_pool(x).flatten(1))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.scale_channels, x, enabled=self.with_cp)


class ContextGuidedBlock(nn.Module):
    """Local features and their surroundings, joined and weighted by the global context.

    The downsampling block has no shortcut and squeezes the joint features back to `out_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dilation: int,
        reduction: int,
        downsample: bool = False,
        conv_cfg: Spec | None,
        norm_cfg: Spec,
        act_cfg: Spec,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.downsample = downsample
        width = out_channels if downsample else out_channels // 2
        size, stride = (3, 2) if downsample else (1, 1)
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": activation(act_cfg, width)}
        self.conv1x1 = ConvBlock(in_channels, width, size, stride, padding=size // 2, **style)
        depthwise: Spec = {"kernel_size": 3, "groups": width, "bias": False}
        self.f_loc = build_conv(conv_cfg, width, width, padding=1, **depthwise)
        self.f_sur = build_conv(conv_cfg, width, width, padding=dilation, dilation=dilation, **depthwise)
        self.bn = build_norm(norm_cfg, 2 * width)
        self.activate = build_activation(activation(act_cfg, 2 * width))
        if downsample:
            self.bottleneck = build_conv(conv_cfg, 2 * width, out_channels, kernel_size=1, bias=False)
        self.f_glo = GlobalContext(out_channels, reduction, with_cp=with_cp)

    def transform(self, x: Tensor) -> Tensor:
        features = self.conv1x1(x)
        joint = self.activate(self.bn(torch.cat([self.f_loc(features), self.f_sur(features)], dim=1)))
        if self.downsample:
            return self.f_glo(self.bottleneck(joint))
        return x + self.f_glo(joint)

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.transform, x, enabled=self.with_cp)


@MODELS.register
class CGNet(Backbone):
    """CGNet (Wu et al., TIP 2021) -> the maps at 1/2, 1/4 and 1/8; the first two contain the shrunken image."""

    stem_parts = ("stem", "norm_prelu_0")
    stage_parts = ("level{1}", "norm_prelu_{1}")
    level1: nn.ModuleList
    level2: nn.ModuleList
    norm_prelu_1: NormActivation
    norm_prelu_2: NormActivation

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_channels: Sequence[int] = (32, 64, 128),
        num_blocks: Sequence[int] = (3, 21),
        dilations: Sequence[int] = (2, 4),
        reductions: Sequence[int] = (8, 16),
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "PReLU"},  # noqa: B006 - never written to
        norm_eval: bool = False,
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.norm_eval = norm_eval
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}

        # stem: three convolutions, the first of them strided
        width = num_channels[0]
        stem: Spec = {"padding": 1, "conv_cfg": conv_cfg} | style | {"act_cfg": activation(act_cfg, width)}
        self.stem = nn.Sequential(
            ConvBlock(in_channels, width, 3, stride=2, **stem),
            ConvBlock(width, width, 3, **stem),
            ConvBlock(width, width, 3, **stem),
        )

        # the shrunken image joins the features
        self.halve = nn.AvgPool2d(3, stride=2, padding=1)
        width += in_channels
        self.norm_prelu_0 = NormActivation(width, **style)

        # levels: a downsampling block, then plain ones
        for level in (1, 2):
            channels = num_channels[level]
            options: Spec = {"dilation": dilations[level - 1], "reduction": reductions[level - 1]}
            options |= {"conv_cfg": conv_cfg, "with_cp": with_cp} | style
            blocks = [ContextGuidedBlock(width, channels, downsample=True, **options)]
            blocks += [ContextGuidedBlock(channels, channels, **options) for _ in range(num_blocks[level - 1] - 1)]
            self.add_module(f"level{level}", nn.ModuleList(blocks))
            width = 2 * channels + (in_channels if level == 1 else 0)
            self.add_module(f"norm_prelu_{level}", NormActivation(width, **style))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        half = self.halve(x)
        quarter = self.halve(half)
        fine = self.norm_prelu_0(torch.cat([self.stem(x), half], dim=1))
        first, last = first_and_last(self.level1, fine)
        middle = self.norm_prelu_1(torch.cat([last, first, quarter], dim=1))
        coarse = self.norm_prelu_2(torch.cat(first_and_last(self.level2, middle), dim=1))
        return fine, middle, coarse


def first_and_last(level: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the blocks of a level, and return the outputs of the first and of the last."""
    first = x = level[0](x)
    for block in level[1:].children():
        x = block(x)
    return first, x
