"""Fast-SCNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.mobilenet_v2 import InvertedResidual
from terrazzo.models.layers import ConvBlock, DepthwiseSeparableConvBlock, Spec, resize
from terrazzo.registry import MODELS


class LearningToDownsample(nn.Module):
    """One convolution and two separable ones, each of stride 2."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], out_channels: int, *, dw_act_cfg: Spec | None, **style: Any
    ) -> None:
        super().__init__()
        first, second = widths
        self.conv = ConvBlock(in_channels, first, 3, stride=2, padding=1, **style)
        style["dw_act_cfg"] = dw_act_cfg
        self.dsconv1 = DepthwiseSeparableConvBlock(first, second, 3, stride=2, padding=1, **style)
        self.dsconv2 = DepthwiseSeparableConvBlock(second, out_channels, 3, stride=2, padding=1, **style)

    def forward(self, x: Tensor) -> Tensor:
        return self.dsconv2(self.dsconv1(self.conv(x)))


class GlobalFeatureExtractor(nn.Module):
    """Three groups of inverted residuals and a pooling pyramid."""

    bottleneck1: nn.Sequential
    bottleneck2: nn.Sequential
    bottleneck3: nn.Sequential

    def __init__(
        self,
        in_channels: int,
        block_channels: Sequence[int],
        out_channels: int,
        *,
        strides: Sequence[int],
        expand_ratio: int = 6,
        num_blocks: Sequence[int] = (3, 3, 3),
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool,
        **style: Any,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = (in_channels, *block_channels)
        for index, count in enumerate(num_blocks):
            before, width = widths[index : index + 2]
            options: Spec = style | {"expand_ratio": expand_ratio}
            blocks = [InvertedResidual(before, width, stride=strides[index], **options)]
            blocks += [InvertedResidual(width, width, stride=1, **options) for _ in range(count - 1)]
            self.add_module(f"bottleneck{index + 1}", nn.Sequential(*blocks))
        width = widths[-1]
        self.ppm = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), ConvBlock(width, width // 4, 1, **style)) for grid in pool_scales
        )
        self.out = ConvBlock(width + len(pool_scales) * (width // 4), out_channels, 3, padding=1, **style)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bottleneck3(self.bottleneck2(self.bottleneck1(x)))
        context = [resize(pool(x), like=x, align_corners=self.align_corners) for pool in self.ppm]
        return self.out(torch.cat([x, *context], dim=1))


class FeatureFusion(nn.Module):
    """Add the upsampled global map to the fine one."""

    def __init__(
        self, higher_channels: int, lower_channels: int, out_channels: int, *, align_corners: bool, **style: Any
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        plain: Spec = style | {"act_cfg": None}
        self.dwconv = ConvBlock(lower_channels, out_channels, 3, padding=1, groups=out_channels, **style)
        self.conv_lower_res = ConvBlock(out_channels, out_channels, 1, **plain)
        self.conv_higher_res = ConvBlock(higher_channels, out_channels, 1, **plain)

    def forward(self, higher: Tensor, lower: Tensor) -> Tensor:
        lower = resize(lower, like=higher, align_corners=self.align_corners)
        return F.relu(self.conv_higher_res(higher) + self.conv_lower_res(self.dwconv(lower)))


@MODELS.register
class FastSCNN(Backbone):
    """Fast-SCNN (Poudel et al., BMVC 2019) -> (fine map at 1/8, global map at 1/32, their fusion at 1/8).

    Raises UserError where the channels of the parts do not fit each other.
    """

    stem_parts = ("learning_to_downsample",)
    stage_parts = ("global_feature_extractor.bottleneck{1}",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        downsample_dw_channels: Sequence[int] = (32, 48),
        global_in_channels: int = 64,
        global_block_channels: Sequence[int] = (64, 96, 128),
        global_block_strides: Sequence[int] = (2, 2, 1),
        global_out_channels: int = 128,
        higher_in_channels: int = 64,
        lower_in_channels: int = 128,
        fusion_out_channels: int = 128,
        out_indices: Sequence[int] = (0, 1, 2),
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        align_corners: bool = False,
        dw_act_cfg: Spec | None = None,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # channels of the parts
        for names, produced, consumed in (
            ("global_in_channels and higher_in_channels", global_in_channels, higher_in_channels),
            ("global_out_channels and lower_in_channels", global_out_channels, lower_in_channels),
        ):
            if produced != consumed:
                raise UserError(
                    f"FastSCNN: {names} belong to the same map and must be equal, not {produced} and {consumed}"
                )

        # parts
        self.out_indices = out_indices
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.learning_to_downsample = LearningToDownsample(
            in_channels, downsample_dw_channels, global_in_channels, dw_act_cfg=dw_act_cfg, **style
        )
        self.global_feature_extractor = GlobalFeatureExtractor(
            global_in_channels,
            global_block_channels,
            global_out_channels,
            strides=global_block_strides,
            align_corners=align_corners,
            **style,
        )
        self.feature_fusion = FeatureFusion(
            higher_in_channels, lower_in_channels, fusion_out_channels, align_corners=align_corners, **style
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        higher = self.learning_to_downsample(x)
        lower = self.global_feature_extractor(higher)
        maps = (higher, lower, self.feature_fusion(higher, lower))
        return tuple(maps[index] for index in self.out_indices)
