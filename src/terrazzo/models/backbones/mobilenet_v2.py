"""MobileNetV2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, maybe_checkpoint
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

COUNTS = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage
BLOCKS = [f"layer{stage}.{block}" for stage, count in enumerate(COUNTS, 1) for block in range(count)]
KINDS = ("conv", "bn")


def block_name(match: re.Match[str]) -> str:
    """`features.N.conv.` of the N-th block, counted from 1."""
    return f"{BLOCKS[int(match[1]) - 1]}.conv."


def last_of(match: re.Match[str]) -> str:
    """The projection, whose convolution and norm are not in a separate sequence."""
    position = 1 if match[1] == "layer1.0" else 2  # the first block has no expansion
    return f"{match[1]}.conv.{position}.{KINDS[int(match[2]) - position]}."


NAMINGS = (
    Naming(
        "torchvision",
        mark=r"features\.1\.conv\.0\.0\.weight",
        rules=(
            (r"^features\.0\.([01])\.", lambda match: f"conv1.{KINDS[int(match[1])]}."),
            (r"^features\.(\d+)\.conv\.", block_name),
            (r"^(layer\d\.\d)\.conv\.(\d)\.(?=[a-z])", last_of),
            (r"\.conv\.(\d)\.([01])\.", lambda match: f".conv.{match[1]}.{KINDS[int(match[2])]}."),
        ),
        drop=r"features\.18\.|classifier\.",
    ),
)


# expansion, channels, number of blocks
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def make_divisible(value: float, divisor: int = 8, min_ratio: float = 0.9) -> int:
    """`value` rounded to a multiple of `divisor`, at least the divisor and not below `min_ratio` of the value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < min_ratio * value else rounded


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; a shortcut where the shape stays."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        expand_ratio: int,
        dilation: int = 1,
        with_cp: bool = False,
        act_cfg: Spec,
        **style: Any,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.shortcut = stride == 1 and in_channels == out_channels
        hidden = round(in_channels * expand_ratio)
        layers: list[nn.Module] = []
        if expand_ratio != 1:
            layers.append(ConvBlock(in_channels, hidden, 1, act_cfg=act_cfg, **style))
        layers += [
            ConvBlock(
                hidden, hidden, 3, stride, padding=dilation, dilation=dilation, groups=hidden, act_cfg=act_cfg, **style
            ),
            ConvBlock(hidden, out_channels, 1, act_cfg=None, **style),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features = maybe_checkpoint(self.conv, x, enabled=self.with_cp)
        return x + features if self.shortcut else features


@MODELS.register
class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al., CVPR 2018) -> the maps of the stages in `out_indices`."""

    stem_parts = ("conv1",)
    stage_parts = ("layer{1}",)
    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        widen_factor: float = 1.0,
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        dilations: Sequence[int] = (1, 1, 1, 1, 1, 1, 1),
        out_indices: Sequence[int] = (1, 2, 4, 6),
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU6"},  # noqa: B006 - never written to
        norm_eval: bool = False,
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices
        self.norm_eval = norm_eval
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        width = make_divisible(32 * widen_factor)
        self.conv1 = ConvBlock(in_channels, width, 3, stride=2, padding=1, **style)
        self.stages = [f"layer{number}" for number in range(1, len(STAGES) + 1)]
        for index, (expansion, channels, count) in enumerate(STAGES):
            channels = make_divisible(channels * widen_factor)
            options: Spec = {"expand_ratio": expansion, "with_cp": with_cp} | style
            first = InvertedResidual(width, channels, stride=strides[index], dilation=dilations[index], **options)
            blocks = [first, *(InvertedResidual(channels, channels, stride=1, **options) for _ in range(count - 1))]
            width = channels
            self.add_module(self.stages[index], nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run_stages(self.conv1(x))
