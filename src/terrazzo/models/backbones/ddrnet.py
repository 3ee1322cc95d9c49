"""Deep dual-resolution network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, build_activation, build_norm, resize
from terrazzo.models.layers.init import init_kaiming
from terrazzo.models.naming import Naming, Rule, Weights, shifted
from terrazzo.registry import MODELS

KINDS = ("conv", "bn")


def absorb_bias(weights: Weights, original: Weights) -> Weights:
    """Subtract the bias before a batch norm, which our convolution lacks, from the running mean."""
    for name in [name for name in weights if name.startswith("stem.") and name.endswith(".conv.bias")]:
        mean = name.replace(".conv.bias", ".bn.running_mean")
        weights[mean] = weights[mean] - weights.pop(name)
    return weights


def pair(pattern: str, replacement: str) -> Rule:
    """Rename a convolution and its norm, numbered 0 and 1 by the last group of the pattern."""
    return pattern, lambda match: match.expand(replacement).format(KINDS[int(match[match.lastindex])])


STEM = (
    (r"^conv1\.([0134])\.", lambda match: f"stem.{int(match[1]) // 3}.{KINDS[int(match[1]) % 3]}."),
    (r"^layer1\.", "stem.2."),
    (r"^layer2\.", "stem.4."),
)
BLOCKS = ((r"(?<=\.)conv([123])\.weight$", r"conv\1.conv.weight"), (r"(?<=\.)bn([123])\.", r"conv\1.bn."))
POOLING = (
    (r"^spp\.(scale0|compression|shortcut|scale_process)\.0\.", r"spp.\1.bn."),
    (r"^spp\.(scale0|compression|shortcut|scale_process)\.2\.", r"spp.\1.conv."),
    (r"^spp\.scale0\.", "spp.scales.0."),
    (r"^spp\.scale([1-4])\.1\.", r"spp.scales.\1.1.bn."),
    (r"^spp\.scale([1-4])\.3\.", r"spp.scales.\1.1.conv."),
    (r"^spp\.scale_process\.", "spp.processes."),
    shifted(r"^spp\.process([1-4])\.0\.", "spp.processes.{}.bn.", -1),
    shifted(r"^spp\.process([1-4])\.2\.", "spp.processes.{}.conv.", -1),
)
COMPRESSION = (
    pair(r"^compression3\.([01])\.", "compression_1.{}."),
    pair(r"^compression4\.([01])\.", "compression_2.{}."),
)
HEADS = r"seghead_|final_layer\.|fc\.|linear\.|last_layer\.|loss\."

DDRNET_NAMINGS = (
    Naming(
        "the DDRNet release",
        mark=r"down3\.0\.weight",
        rules=(
            *STEM,
            shifted(r"^layer([345])\.", "context_branch_layers.{}.", -3),
            shifted(r"^layer([345])_\.", "spatial_branch_layers.{}.", -3),
            *COMPRESSION,
            pair(r"^down3\.([01])\.", "down_1.{}."),
            (r"^down4\.([0134])\.", lambda match: f"down_2.{int(match[1]) // 3}.{KINDS[int(match[1]) % 3]}."),
            *BLOCKS,
            *POOLING,
        ),
        drop=HEADS,
        finish=absorb_bias,
    ),
)
PIDNET_NAMINGS = (
    Naming(
        "the PIDNet release",
        mark=r"pag3\.f_x\.0\.weight",
        rules=(
            *STEM,
            shifted(r"^layer([345])\.", "i_branch_layers.{}.", -3),
            shifted(r"^layer([345])_\.", "p_branch_layers.{}.", -3),
            shifted(r"^layer([345])_d\.", "d_branch_layers.{}.", -3),
            *COMPRESSION,
            shifted(r"^pag([34])\.", "pag_{}.", -2),
            pair(r"^(pag_[12])\.f_x\.([01])\.", r"\1.f_p.{}."),
            pair(r"^(pag_[12])\.f_y\.([01])\.", r"\1.f_i.{}."),
            shifted(r"^diff([34])\.", "diff_{}.", -2),
            pair(r"^(diff_[12])\.([01])\.", r"\1.{}."),
            pair(r"^dfm\.conv_p\.([01])\.", "dfm.f_p.{}."),
            pair(r"^dfm\.conv_i\.([01])\.", "dfm.f_i.{}."),
            (r"^dfm\.conv\.0\.", "dfm.conv.bn."),
            (r"^dfm\.conv\.2\.", "dfm.conv.conv."),
            pair(r"\.downsample\.([01])\.", ".downsample.{}."),
            *BLOCKS,
            *POOLING,
        ),
        drop=HEADS,
        finish=absorb_bias,
    ),
)


RELU = {"type": "ReLU", "inplace": True}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `activate` applies the activation after the sum."""

    expansion = 1
    kernels: Sequence[int] = (3, 3)  # of the convolutions, the first 3x3 of which has the stride

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        activate: bool = False,
        norm_cfg: Spec,
        act_cfg: Spec,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * (len(self.kernels) - 1), channels * self.expansion]
        for index, (kernel, (source, width)) in enumerate(zip(self.kernels, pairwise(widths), strict=True)):
            options: Spec = {"stride": stride if index == self.kernels.index(3) else 1, "padding": kernel // 2}
            options |= {"norm_cfg": norm_cfg, "act_cfg": act_cfg if index < len(self.kernels) - 1 else None}
            self.add_module(f"conv{index + 1}", ConvBlock(source, width, kernel, **options))
        self.downsample = downsample
        self.activate = build_activation(act_cfg) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, len(self.kernels) + 1):
            x = getattr(self, f"conv{number}")(x)
        return self.activate(x + shortcut)


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 to twice the width."""

    expansion = 2
    kernels = (1, 3, 1)


class BranchedNet(Backbone):
    """The base of networks whose branches begin with a common stem, to 1/8."""

    stem_parts = ("stem",)
    stage_parts = ("*_branch_layers.{0}", "compression_{1}", "down_{1}", "pag_{1}", "diff_{1}")

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stem_blocks: int,
        *,
        align_corners: bool,
        norm_cfg: Spec,
        act_cfg: Spec,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.align_corners = align_corners
        self.style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.stem = nn.Sequential(
            ConvBlock(in_channels, channels, 3, stride=2, padding=1, **self.style),
            ConvBlock(channels, channels, 3, stride=2, padding=1, **self.style),
            self.blocks(BasicBlock, channels, channels, stem_blocks),
            nn.ReLU(),
            self.blocks(BasicBlock, channels, channels * 2, stem_blocks, stride=2),
            nn.ReLU(),
        )

    def project(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """The shortcut of a block that changes the shape."""
        raise NotImplementedError

    def block(
        self, kind: type[BasicBlock], in_channels: int, channels: int, stride: int = 1, activate: bool = False
    ) -> BasicBlock:
        """One residual block."""
        width = channels * kind.expansion
        downsample = self.project(in_channels, width, stride) if stride != 1 or in_channels != width else None
        return kind(in_channels, channels, stride=stride, downsample=downsample, activate=activate, **self.style)

    def blocks(
        self, kind: type[BasicBlock], in_channels: int, channels: int, count: int, stride: int = 1
    ) -> nn.Sequential:
        """A chain of blocks; basic ones are activated between them, and not after the last."""
        active = [kind is BasicBlock and index < count - 1 for index in range(count)]
        first = self.block(kind, in_channels, channels, stride, activate=active[0])
        rest = [self.block(kind, channels * kind.expansion, channels, activate=flag) for flag in active[1:]]
        return nn.Sequential(first, *rest)

    def branch(self, blocks: Sequence[tuple[type[BasicBlock], int, int, int]], stride: int = 1) -> nn.ModuleList:
        """Chains of blocks: kind, input channels, channels and number of each."""
        return nn.ModuleList(self.blocks(*chain, stride=stride) for chain in blocks)

    def match_size(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like=like, align_corners=self.align_corners)


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling: each coarser pooling is refined together with the finer one before it."""

    grouped = False

    def __init__(
        self, in_channels: int, branch_channels: int, out_channels: int, *, norm_cfg: Spec, act_cfg: Spec
    ) -> None:
        super().__init__()

        def block(source: int, width: int, size: int, **options: Any) -> ConvBlock:
            order = ("norm", "act", "conv")
            style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg, "order": order}
            return ConvBlock(source, width, size, padding=size // 2, **style, **options)

        poolings = [nn.AvgPool2d(2**power + 1, 2 ** (power - 1), 2 ** (power - 1)) for power in (2, 3, 4)]
        self.scales = nn.ModuleList([block(in_channels, branch_channels, 1)])
        for pooling in (*poolings, nn.AdaptiveAvgPool2d(1)):
            self.scales.append(nn.Sequential(pooling, block(in_channels, branch_channels, 1)))
        coarse = len(self.scales) - 1
        if self.grouped:
            width = coarse * branch_channels
            self.processes: nn.Module = block(width, width, 3, groups=coarse)
        else:
            self.processes = nn.ModuleList(block(branch_channels, branch_channels, 3) for _ in range(coarse))
        self.compression = block(branch_channels * len(self.scales), out_channels, 1)
        self.shortcut = block(in_channels, out_channels, 1)

    def pool(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The unpooled branch and the pooled ones, all at the size of `x`."""
        fine, *coarse = [scale(x) for scale in self.scales]
        return fine, [resize(pooled, like=x) for pooled in coarse]

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.pool(x)
        branches = [fine]
        for process, pooled in zip(self.processes.children(), coarse, strict=True):
            branches.append(process(pooled + branches[-1]))
        return self.compression(torch.cat(branches, dim=1)) + self.shortcut(x)


@MODELS.register
class DDRNet(BranchedNet):
    """DDRNet (Hong et al., 2021): a detail branch at 1/8 and a context branch down to 1/64 that exchange features.

    -> the detail branch half-way (2 * channels, for an auxiliary loss) and the two branches together (4 * channels),
    both at 1/8.
    """

    namings = DDRNET_NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 32,
        ppm_channels: int = 128,
        align_corners: bool = False,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec = RELU,
        **freezing: Any,
    ) -> None:
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        super().__init__(in_channels, channels, 2, align_corners=align_corners, **style, **freezing)

        # context branch
        width, wide = channels * 2, channels * 8
        self.context_branch_layers = self.branch(
            [(BasicBlock, width, width * 2, 2), (BasicBlock, width * 2, wide, 2), (Bottleneck, wide, wide, 1)], stride=2
        )

        # exchange between the branches
        linear: Spec = self.style | {"act_cfg": None}
        self.compression_1 = ConvBlock(width * 2, width, 1, **linear)
        self.down_1 = ConvBlock(width, width * 2, 3, stride=2, padding=1, **linear)
        self.compression_2 = ConvBlock(wide, width, 1, **linear)
        self.down_2 = nn.Sequential(
            ConvBlock(width, width * 2, 3, stride=2, padding=1, **self.style),
            ConvBlock(width * 2, wide, 3, stride=2, padding=1, **linear),
        )

        # detail branch and pooling
        self.spatial_branch_layers = self.branch(
            [(BasicBlock, width, width, 2), (BasicBlock, width, width, 2), (Bottleneck, width, width, 1)]
        )
        self.spp = DAPPM(wide * 2, ppm_channels, width * 2, **self.style)

    def project(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        init_kaiming(conv)
        return nn.Sequential(conv, build_norm(self.style["norm_cfg"], out_channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(x)  # N, 2 * channels, H/8, W/8
        context = self.context_branch_layers[0](stem)
        detail = self.spatial_branch_layers[0](stem)
        half_way, context = self.exchange(detail, context, self.down_1, self.compression_1)
        context = self.context_branch_layers[1](F.relu(context))
        detail = self.spatial_branch_layers[1](F.relu(half_way))
        detail, context = self.exchange(detail, context, self.down_2, self.compression_2)
        detail = self.spatial_branch_layers[2](F.relu(detail))  # N, 4 * channels, H/8, W/8
        context = self.spp(self.context_branch_layers[2](F.relu(context)))  # N, 4 * channels, H/64, W/64
        return half_way, detail + self.match_size(context, detail)

    def exchange(self, detail: Tensor, context: Tensor, down: nn.Module, compress: nn.Module) -> tuple[Tensor, Tensor]:
        """Each branch plus the other, brought to its size and width."""
        upwards = self.match_size(compress(F.relu(context)), detail)
        return detail + upwards, context + down(F.relu(detail))
