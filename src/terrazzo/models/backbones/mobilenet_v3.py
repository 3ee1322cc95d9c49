"""MobileNetV3, dilated for dense prediction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.mobilenet_v2 import make_divisible
from terrazzo.models.layers import ConvBlock, Spec, maybe_checkpoint
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS

KINDS = ("conv", "bn")
CONVOLUTIONS = ("expand_conv", "depthwise_conv", "linear_conv")  # a block without the first has no expansion


def by_role(weights: Weights, original: Weights) -> Weights:
    """Rename `layerN.block.M`, the M-th part of a block, by the role of the part."""
    parts: dict[str, set[int]] = {}
    for name in weights:
        if match := re.match(r"(layer\d+)\.block\.(\d)\.[01]\.", name):
            parts.setdefault(match[1], set()).add(int(match[2]))

    def role(match: re.Match[str]) -> str:
        order = sorted(parts[match[1]])
        return f"{match[1]}.{CONVOLUTIONS[order.index(int(match[2])) - len(order)]}.{KINDS[int(match[3])]}."

    return {re.sub(r"(layer\d+)\.block\.(\d)\.([01])\.", role, name): value for name, value in weights.items()}


NAMINGS = (
    Naming(
        "torchvision",
        mark=r"features\.1\.block\.0\.0\.weight",
        rules=(
            (r"^features\.(\d+)\.([01])\.", lambda match: f"layer{match[1]}.{KINDS[int(match[2])]}."),
            (r"^features\.", "layer"),
            (r"\.block\.\d\.fc([12])\.", r".se.conv\1.conv."),
        ),
        drop=r"classifier\.",
        finish=by_role,
    ),
)


# kernel, hidden channels, channels, squeeze and excitation, activation, stride
SMALL = (
    (3, 16, 16, True, "ReLU", 2),
    (3, 72, 24, False, "ReLU", 2),
    (3, 88, 24, False, "ReLU", 1),
    (5, 96, 40, True, "HSwish", 2),
    (5, 240, 40, True, "HSwish", 1),
    (5, 240, 40, True, "HSwish", 1),
    (5, 120, 48, True, "HSwish", 1),
    (5, 144, 48, True, "HSwish", 1),
    (5, 288, 96, True, "HSwish", 2),
    (5, 576, 96, True, "HSwish", 1),
    (5, 576, 96, True, "HSwish", 1),
)
LARGE = (
    (3, 16, 16, False, "ReLU", 1),
    (3, 64, 24, False, "ReLU", 2),
    (3, 72, 24, False, "ReLU", 1),
    (5, 72, 40, True, "ReLU", 2),
    (5, 120, 40, True, "ReLU", 1),
    (5, 120, 40, True, "ReLU", 1),
    (3, 240, 80, False, "HSwish", 2),
    (3, 200, 80, False, "HSwish", 1),
    (3, 184, 80, False, "HSwish", 1),
    (3, 184, 80, False, "HSwish", 1),
    (3, 480, 112, True, "HSwish", 1),
    (3, 672, 112, True, "HSwish", 1),
    (5, 672, 160, True, "HSwish", 2),
    (5, 960, 160, True, "HSwish", 1),
    (5, 960, 160, True, "HSwish", 1),
)
# blocks, channels of the last convolution, the blocks (from 1) where dilations of 2 and 4 replace a stride
ARCHITECTURES = {"small": (SMALL, 576, 4, 9), "large": (LARGE, 960, 7, 13)}


class SqueezeExcitation(nn.Module):
    """Weight each channel by two pointwise convolutions on the global averages (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, *, ratio: int = 4, conv_cfg: Spec | None) -> None:
        super().__init__()
        squeezed = make_divisible(channels // ratio)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvBlock(channels, squeezed, 1, conv_cfg=conv_cfg)
        self.conv2 = ConvBlock(squeezed, channels, 1, conv_cfg=conv_cfg, act_cfg={"type": "HSigmoid"})

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, squeeze and excite, project back; a shortcut where the shape stays."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        dilation: int,
        same_padding: bool,
        excite: bool,
        with_cp: bool,
        conv_cfg: Spec | None,
        norm_cfg: Spec,
        act_cfg: Spec,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.shortcut = stride == 1 and in_channels == out_channels
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        self.expand_conv = None
        if hidden != in_channels:
            self.expand_conv = ConvBlock(in_channels, hidden, 1, act_cfg=act_cfg, **style)
        depthwise: Spec = {"padding": dilation * (kernel_size // 2), "dilation": dilation, "groups": hidden}
        depthwise |= {"conv_cfg": {"type": "Conv2dAdaptivePadding"} if same_padding else conv_cfg}
        depthwise |= {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.depthwise_conv = ConvBlock(hidden, hidden, kernel_size, stride, **depthwise)
        self.se = SqueezeExcitation(hidden, conv_cfg=conv_cfg) if excite else None
        self.linear_conv = ConvBlock(hidden, out_channels, 1, act_cfg=None, **style)

    def transform(self, x: Tensor) -> Tensor:
        if self.expand_conv is not None:
            x = self.expand_conv(x)
        x = self.depthwise_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.linear_conv(x)

    def forward(self, x: Tensor) -> Tensor:
        features = maybe_checkpoint(self.transform, x, enabled=self.with_cp)
        return x + features if self.shortcut else features


@MODELS.register
class MobileNetV3(Backbone):
    """MobileNetV3 (Howard et al., ICCV 2019) at an output stride of 8 -> the maps of the layers in `out_indices`.

    Layer 0 is the stem, the last one the closing convolution; `reduction_factor` narrows the blocks of dilation 4.
    Raises UserError for an unknown `arch`.
    """

    stem_parts = ("layer0",)
    stage_parts = ("layer{1}",)
    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        arch: str = "small",
        out_indices: Sequence[int] = (0, 1, 12),
        reduction_factor: int = 1,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        norm_eval: bool = False,
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # architecture
        if arch not in ARCHITECTURES:
            raise UserError(f"MobileNetV3: arch '{arch}' is unknown: use {' or '.join(ARCHITECTURES)}")
        blocks, last_channels, first_dilated, second_dilated = ARCHITECTURES[arch]
        self.out_indices = out_indices
        self.norm_eval = norm_eval

        # stem
        width = 16
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": {"type": "HSwish"}}
        self.layer0 = ConvBlock(in_channels, width, 3, stride=2, conv_cfg={"type": "Conv2dAdaptivePadding"}, **style)

        # blocks
        for number, (kernel_size, hidden, channels, excite, act, stride) in enumerate(blocks, start=1):
            if number >= second_dilated:
                hidden, channels = hidden // reduction_factor, channels // reduction_factor
            block = InvertedResidual(
                width,
                hidden,
                channels,
                kernel_size=kernel_size,
                stride=1 if number >= first_dilated else stride,
                dilation=4 if number >= second_dilated else 2 if number >= first_dilated else 1,
                same_padding=stride == 2,
                excite=excite,
                with_cp=with_cp,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg={"type": act},
            )
            self.add_module(f"layer{number}", block)
            width = channels

        # closing convolution
        self.add_module(f"layer{len(blocks) + 1}", ConvBlock(width, last_channels, 1, conv_cfg=conv_cfg, **style))
        self.stages = [f"layer{number}" for number in range(len(blocks) + 2)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run_stages(x)
