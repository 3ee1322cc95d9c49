"""Short-term dense concatenate network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.bisenet_v1 import AttentionRefinement
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS


def into_stages(weights: Weights, original: Weights) -> Weights:
    """Group `features.N` into stages, each of which begins with a strided block."""
    begins = {int(match[1]) for name in weights if (match := re.match(r"features\.(\d+)\.downsample\.", name))}

    def stage_name(match: re.Match[str]) -> str:
        index = int(match[1])
        if index < min(begins):
            return f"stages.{index}."
        begin = max(start for start in begins if start <= index)
        return f"stages.{min(begins) + sorted(begins).index(begin)}.{index - begin}."

    return {re.sub(r"^features\.(\d+)\.", stage_name, name): value for name, value in weights.items()}


NAMINGS = (
    Naming(
        "the STDC release",
        mark=r"features\.2\.conv_list\.0\.conv\.weight",
        rules=(
            (r"\.conv_list\.", ".layers."),
            (r"\.avd_layer\.0\.", ".downsample.conv."),
            (r"\.avd_layer\.1\.", ".downsample.bn."),
            (r"^conv_last\.", "final_conv."),
        ),
        drop=r"(fc|bn|linear|x2|x4|x8|x16|x32)\.",
        finish=into_stages,
    ),
)


# strides of the blocks of the last three stages
ARCHITECTURES: dict[str, tuple[tuple[int, ...], ...]] = {
    "STDCNet1": ((2, 1), (2, 1), (2, 1)),
    "STDCNet2": ((2, 1, 1, 1), (2, 1, 1, 1, 1), (2, 1, 1)),
}


class STDCModule(nn.Module):
    """A chain of ever narrower convolutions with concatenated outputs; "add" also adds the input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        num_convs: int,
        fusion_type: str,
        norm_cfg: Spec | None,
        act_cfg: Spec | None,
    ) -> None:
        super().__init__()
        self.add = fusion_type == "add"
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        linear: Spec = {"norm_cfg": norm_cfg, "act_cfg": None}
        half = out_channels // 2
        # half, a quarter, an eighth ...; the last two are equal, so that the sum is out_channels
        widths = [out_channels >> min(index + 1, num_convs - 1) for index in range(num_convs)]
        self.layers = nn.ModuleList([ConvBlock(in_channels, half, 1, **style)])
        for source, width in itertools.pairwise(widths):
            self.layers.append(ConvBlock(source, width, 3, padding=1, **style))
        self.downsample: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            self.downsample = ConvBlock(half, half, 3, stride=2, padding=1, groups=half, **linear)
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)
            if self.add:
                self.skip = nn.Sequential(
                    ConvBlock(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, **linear),
                    ConvBlock(in_channels, out_channels, 1, **linear),
                )

    def forward(self, x: Tensor) -> Tensor:
        head, *rest = self.layers
        first = head(x)
        chain = [self.downsample(first)]
        for layer in rest:
            chain.append(layer(chain[-1]))
        if self.add:
            return torch.cat(chain, dim=1) + self.skip(x)
        return torch.cat([self.skip(first), *chain[1:]], dim=1)


@MODELS.register
class STDCNet(Backbone):
    """STDC (Fan et al., CVPR 2021) -> the maps of the last three stages, at 1/8, 1/16 and 1/32.

    Raises UserError for an unknown `stdc_type` or `bottleneck_type`.
    """

    stage_parts = ("stages.{0}",)
    namings = NAMINGS

    def __init__(
        self,
        *,
        stdc_type: str,
        in_channels: int,
        channels: Sequence[int],
        bottleneck_type: str,
        norm_cfg: Spec | None,
        act_cfg: Spec | None,
        num_convs: int = 4,
        with_final_conv: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        if stdc_type not in ARCHITECTURES:
            raise UserError(f"STDCNet: stdc_type '{stdc_type}' is unknown; available are {list(ARCHITECTURES)}")
        if bottleneck_type not in ("add", "cat"):
            raise UserError(f"STDCNet: bottleneck_type '{bottleneck_type}' is unknown; use 'cat' or 'add'")
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.stages = nn.ModuleList(
            ConvBlock(source, width, 3, stride=2, padding=1, **style)
            for source, width in zip((in_channels, channels[0]), channels[:2], strict=True)
        )
        for source, width, strides in zip(channels[1:], channels[2:], ARCHITECTURES[stdc_type], strict=False):
            options: Spec = {"num_convs": num_convs, "fusion_type": bottleneck_type} | style
            blocks = [
                STDCModule(width if index else source, width, stride=stride, **options)
                for index, stride in enumerate(strides)
            ]
            self.stages.append(nn.Sequential(*blocks))
        self.final_conv: nn.Module = nn.Identity()
        if with_final_conv:
            self.final_conv = ConvBlock(channels[-1], max(1024, channels[-1]), 1, **style)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return (*outputs[2:-1], self.final_conv(x))


class FeatureFusion(nn.Module):
    """Fuse detail and context, and add the fused map once more, its channels weighted by their means."""

    def __init__(self, in_channels: int, out_channels: int, *, scale_factor: int = 4, norm_cfg: Spec) -> None:
        super().__init__()
        inner = out_channels // scale_factor
        self.conv0 = ConvBlock(in_channels, out_channels, 1, norm_cfg=norm_cfg)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvBlock(out_channels, inner, 1, bias=False),
            ConvBlock(inner, out_channels, 1, bias=False, act_cfg=None),
            nn.Sigmoid(),
        )

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.conv0(torch.cat([detail, context], dim=1))
        return x + x * self.attention(x)


@MODELS.register
class STDCContextPathNet(Backbone):
    """STDC with a context path (Fan et al., CVPR 2021).

    -> the backbone's map at 1/8, the context at 1/16 and at 1/8, and the first and the last of them fused.
    """

    stage_parts = ("backbone.stages.{0}",)

    def __init__(
        self,
        *,
        backbone_cfg: Spec,
        last_in_channels: Sequence[int] = (1024, 512),
        out_channels: int = 128,
        ffm_cfg: Spec = {"in_channels": 512, "out_channels": 256, "scale_factor": 4},  # noqa: B006 - never written to
        upsample_mode: str = "nearest",
        align_corners: bool | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.upsample_mode, self.align_corners = upsample_mode, align_corners
        self.backbone = MODELS.build(backbone_cfg, "backbone_cfg")
        self.arms = nn.ModuleList(
            AttentionRefinement(width, out_channels, norm_cfg=norm_cfg) for width in last_in_channels
        )
        self.convs = nn.ModuleList(
            ConvBlock(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg) for _ in last_in_channels
        )
        self.conv_avg = ConvBlock(last_in_channels[0], out_channels, 1, norm_cfg=norm_cfg)
        fusion: Spec = {"norm_cfg": norm_cfg} | ffm_cfg
        self.ffm = FeatureFusion(**fusion)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)  # 1/8, 1/16, 1/32
        detail, coarsest = maps[0], maps[-1]
        context = self.match_size(self.conv_avg(F.adaptive_avg_pool2d(coarsest, 1)), coarsest)
        contexts = []
        for level, (arm, conv) in enumerate(zip(self.arms, self.convs, strict=True)):
            context = arm(maps[-1 - level]) + context
            context = conv(self.match_size(context, maps[-2 - level]))
            contexts.append(context)
        return (detail, *contexts, self.ffm(detail, context))

    def match_size(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like=like, mode=self.upsample_mode, align_corners=bool(self.align_corners))
