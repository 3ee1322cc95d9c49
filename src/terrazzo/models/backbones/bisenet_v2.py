"""BiSeNetV2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, DepthwiseSeparableConvBlock, Spec, build_norm, resize
from terrazzo.registry import MODELS


class DetailBranch(nn.Module):
    """Wide and shallow: plain 3x3 convolutions down to 1/8."""

    def __init__(self, in_channels: int, widths: Sequence[int], **style: Any) -> None:
        super().__init__()
        self.detail_branch = nn.Sequential()
        for index, channels in enumerate(widths):
            first = ConvBlock(in_channels, channels, 3, stride=2, padding=1, **style)
            rest = [ConvBlock(channels, channels, 3, padding=1, **style) for _ in range(2 if index else 1)]
            self.detail_branch.append(nn.Sequential(first, *rest))
            in_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.detail_branch(x)


class StemBlock(nn.Module):
    """To 1/4 by convolution and by pooling, fused."""

    def __init__(self, in_channels: int, channels: int, **style: Any) -> None:
        super().__init__()
        self.conv_first = ConvBlock(in_channels, channels, 3, stride=2, padding=1, **style)
        self.convs = nn.Sequential(
            ConvBlock(channels, channels // 2, 1, **style),
            ConvBlock(channels // 2, channels, 3, stride=2, padding=1, **style),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse_last = ConvBlock(2 * channels, channels, 3, padding=1, **style)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        return self.fuse_last(torch.cat([self.convs(x), self.pool(x)], dim=1))


class GatherExpansion(nn.Module):
    """3x3 convolution, depthwise expansion, 1x1 projection, and a shortcut, which is separable where strided."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, expansion: int, act_cfg: Spec, **style: Any
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        depthwise: Spec = {"kernel_size": 3, "padding": 1, "groups": in_channels} | style
        self.conv1 = ConvBlock(in_channels, in_channels, 3, padding=1, act_cfg=act_cfg, **style)
        self.shortcut = None
        if stride == 1:
            self.dwconv = nn.Sequential(ConvBlock(in_channels, hidden, act_cfg=act_cfg, **depthwise))
        else:
            self.dwconv = nn.Sequential(
                ConvBlock(in_channels, hidden, stride=stride, act_cfg=None, **depthwise),
                ConvBlock(hidden, hidden, act_cfg=act_cfg, **(depthwise | {"groups": hidden})),
            )
            self.shortcut = nn.Sequential(
                DepthwiseSeparableConvBlock(
                    in_channels, out_channels, 3, stride=stride, padding=1, act_cfg=None, **style
                )
            )
        self.conv2 = nn.Sequential(ConvBlock(hidden, out_channels, 1, act_cfg=None, **style))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(shortcut + self.conv2(self.dwconv(self.conv1(x))))


class ContextEmbedding(nn.Module):
    """Add the global average to every position."""

    def __init__(self, channels: int, *, norm_cfg: Spec, **style: Any) -> None:
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), build_norm(norm_cfg, channels))
        self.conv_gap = ConvBlock(channels, channels, 1, norm_cfg=norm_cfg, **style)
        self.conv_last = ConvBlock(channels, channels, 3, padding=1, norm_cfg=norm_cfg, **style)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_last(x + self.conv_gap(self.gap(x)))


class SemanticBranch(nn.Module):
    """Narrow and deep -> the maps of the stem, the three stages and the context embedding."""

    def __init__(self, in_channels: int, widths: Sequence[int], *, expansion: int, **style: Any) -> None:
        super().__init__()
        self.stage1 = StemBlock(in_channels, widths[0], **style)
        self.stages = ["stage1"]
        for index in range(1, len(widths)):
            count = 4 if index == len(widths) - 1 else 2
            sources = [widths[index - 1], *[widths[index]] * (count - 1)]
            blocks = [
                GatherExpansion(source, widths[index], stride=1 if block else 2, expansion=expansion, **style)
                for block, source in enumerate(sources)
            ]
            self.stages.append(f"stage{index + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.stages.append(f"stage{len(widths)}_CEBlock")
        self.add_module(self.stages[-1], ContextEmbedding(widths[-1], **style))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for name in self.stages:
            x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


class BilateralGuidedAggregation(nn.Module):
    """Weight the features of each branch by the other, at both resolutions."""

    def __init__(self, channels: int, *, align_corners: bool, **style: Any) -> None:
        super().__init__()
        self.align_corners = align_corners
        plain: Spec = style | {"act_cfg": None}
        pointwise = plain | {"pw_norm_cfg": None}
        self.detail_dwconv = nn.Sequential(DepthwiseSeparableConvBlock(channels, channels, 3, padding=1, **pointwise))
        self.detail_down = nn.Sequential(
            ConvBlock(channels, channels, 3, stride=2, padding=1, **plain), nn.AvgPool2d(3, stride=2, padding=1)
        )
        self.semantic_conv = nn.Sequential(ConvBlock(channels, channels, 3, padding=1, **plain))
        self.semantic_dwconv = nn.Sequential(DepthwiseSeparableConvBlock(channels, channels, 3, padding=1, **pointwise))
        self.conv = ConvBlock(channels, channels, 3, padding=1, **style)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        fine = self.detail_dwconv(detail)
        gate = resize(self.semantic_conv(semantic), like=fine, align_corners=self.align_corners)
        fine = fine * gate.sigmoid()
        coarse = self.detail_down(detail) * self.semantic_dwconv(semantic).sigmoid()
        return self.conv(fine + resize(coarse, like=fine, align_corners=self.align_corners))


@MODELS.register
class BiSeNetV2(Backbone):
    """BiSeNetV2 (Yu et al., IJCV 2021) -> (fused map at 1/8, semantic maps at 1/4, 1/8, 1/16 and 1/32)."""

    stage_parts = ("detail.detail_branch.{0}", "semantic.stage{1}*")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        detail_channels: Sequence[int] = (64, 64, 128),
        semantic_channels: Sequence[int] = (16, 32, 64, 128),
        semantic_expansion_ratio: int = 6,
        bga_channels: int = 128,
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
        align_corners: bool = False,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.detail = DetailBranch(in_channels, detail_channels, **style)
        self.semantic = SemanticBranch(in_channels, semantic_channels, expansion=semantic_expansion_ratio, **style)
        self.bga = BilateralGuidedAggregation(bga_channels, align_corners=align_corners, **style)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        detail = self.detail(x)
        *stages, context = self.semantic(x)
        maps = (self.bga(detail, context), *stages)
        return tuple(maps[index] for index in self.out_indices)
