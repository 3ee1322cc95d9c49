"""BiSeNetV1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


class SpatialPath(nn.Module):
    """Three strided convolutions and a pointwise one: fine detail at 1/8."""

    def __init__(self, in_channels: int, widths: Sequence[int], **style: Any) -> None:
        super().__init__()
        first, second, third, last = widths
        self.layer1 = ConvBlock(in_channels, first, 7, stride=2, padding=3, **style)
        self.layer2 = ConvBlock(first, second, 3, stride=2, padding=1, **style)
        self.layer3 = ConvBlock(second, third, 3, stride=2, padding=1, **style)
        self.layer4 = ConvBlock(third, last, 1, **style)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class AttentionRefinement(nn.Module):
    """A convolution whose channels are weighted by their global averages."""

    def __init__(self, in_channels: int, out_channels: int, **style: Any) -> None:
        super().__init__()
        self.conv_layer = ConvBlock(in_channels, out_channels, 3, padding=1, **style)
        self.atten_conv_layer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvBlock(out_channels, out_channels, 1, **(style | {"act_cfg": None})),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_layer(x)
        return x * self.atten_conv_layer(x)


class ContextPath(nn.Module):
    """A classification backbone whose maps at 1/16 and 1/32 are refined and brought to 1/8 and 1/16."""

    def __init__(self, backbone_cfg: Spec, channels: Sequence[int], **style: Any) -> None:
        super().__init__()
        width, middle, deep = channels
        self.backbone = MODELS.build(backbone_cfg, "backbone.backbone_cfg")
        self.arm16 = AttentionRefinement(middle, width, **style)
        self.arm32 = AttentionRefinement(deep, width, **style)
        self.conv_head32 = ConvBlock(width, width, 3, padding=1, **style)
        self.conv_head16 = ConvBlock(width, width, 3, padding=1, **style)
        self.gap_conv = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBlock(deep, width, 1, **style))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, fine, middle, deep = self.backbone(x)  # 1/4, 1/8, 1/16, 1/32
        refined = self.arm32(deep) + self.gap_conv(deep)
        at_16 = self.conv_head32(resize(refined, like=middle, mode="nearest"))
        refined = self.arm16(middle) + at_16
        at_8 = self.conv_head16(resize(refined, like=fine, mode="nearest"))
        return at_8, at_16


class FeatureFusion(nn.Module):
    """Concatenate two maps, mix them, and add the mixture weighted by its global averages."""

    def __init__(self, in_channels: int, out_channels: int, **style: Any) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels, out_channels, 1, **style)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.conv_atten = nn.Sequential(ConvBlock(out_channels, out_channels, 1, **style), nn.Sigmoid())

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.conv1(torch.cat([spatial, context], dim=1))
        return x + x * self.conv_atten(self.gap(x))


@MODELS.register
class BiSeNetV1(Backbone):
    """BiSeNet (Yu et al., ECCV 2018) -> (fused map at 1/8, context at 1/8, context at 1/16).

    `backbone_cfg` describes the context path's backbone, which gives four maps; `context_channels` are the width of the
    context path and the channels of the backbone's last two maps.
    """

    stem_parts = ("context_path.backbone.stem", "context_path.backbone.conv1", "context_path.backbone.?n1")
    stage_parts = ("context_path.backbone.layer{1}", "spatial_path.layer{1}")

    def __init__(
        self,
        *,
        backbone_cfg: Spec,
        in_channels: int = 3,
        spatial_channels: Sequence[int] = (64, 64, 64, 128),
        context_channels: Sequence[int] = (128, 256, 512),
        out_indices: Sequence[int] = (0, 1, 2),
        out_channels: int = 256,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.context_path = ContextPath(backbone_cfg, context_channels, **style)
        self.spatial_path = SpatialPath(in_channels, spatial_channels, **style)
        self.ffm = FeatureFusion(spatial_channels[-1] + context_channels[0], out_channels, **style)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        at_8, at_16 = self.context_path(x)
        maps = (self.ffm(self.spatial_path(x), at_8), at_8, at_16)
        return tuple(maps[index] for index in self.out_indices)
