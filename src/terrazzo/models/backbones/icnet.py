"""ICNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


@MODELS.register
class ICNet(Backbone):
    """ICNet's image cascade (Zhao et al., ECCV 2018) -> maps at 1/8, 1/16 and 1/32 of the input.

    The full image passes three convolutions; its half passes two stages of the ResNet that `backbone_cfg` describes,
    and a quarter of it all four and a pooling pyramid. `layer_channels` are those of the second and the last stage.
    Raises UserError for a backbone without a deep stem.
    """

    stem_parts = ("backbone.stem", "conv_sub1")
    stage_parts = ("backbone.layer{1}",)

    def __init__(
        self,
        *,
        backbone_cfg: Spec,
        in_channels: int = 3,
        layer_channels: Sequence[int] = (512, 2048),
        light_branch_middle_channels: int = 32,
        psp_out_channels: int = 512,
        out_channels: Sequence[int] = (64, 256, 256),
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        align_corners: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.align_corners = align_corners
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        middle, deep = layer_channels
        self.backbone = MODELS.build(backbone_cfg, "backbone.backbone_cfg")
        if not hasattr(self.backbone, "stem"):
            raise UserError("ICNet: backbone_cfg needs a ResNet with a deep stem, such as ResNetV1c")
        self.backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)  # keeps the last row and column
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), ConvBlock(deep, psp_out_channels, 1, **style))
            for grid in pool_scales
        )
        fused = deep + len(pool_scales) * psp_out_channels
        self.psp_bottleneck = ConvBlock(fused, psp_out_channels, 3, padding=1, **style)
        light = light_branch_middle_channels
        self.conv_sub1 = nn.Sequential(
            ConvBlock(in_channels, light, 3, stride=2, padding=1, **style),
            ConvBlock(light, light, 3, stride=2, padding=1, **style),
            ConvBlock(light, out_channels[0], 3, stride=2, padding=1, **style),
        )
        self.conv_sub2 = ConvBlock(middle, out_channels[1], 1, **style)
        self.conv_sub4 = ConvBlock(psp_out_channels, out_channels[2], 1, **style)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        full = self.conv_sub1(x)
        resnet = self.backbone
        x = resnet.layer2(resnet.layer1(resnet.maxpool(resnet.stem(self.halve(x)))))
        half = self.conv_sub2(x)
        x = resnet.layer4(resnet.layer3(self.halve(x)))
        context = [resize(pool(x), like=x, align_corners=self.align_corners) for pool in self.psp_modules]
        quarter = self.conv_sub4(self.psp_bottleneck(torch.cat([*context, x], dim=1)))
        return full, half, quarter

    def halve(self, x: Tensor) -> Tensor:
        return resize(x, scale_factor=0.5, align_corners=self.align_corners)
