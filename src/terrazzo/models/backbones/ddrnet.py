"""Deep dual-resolution network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class ResidualBlock(nn.Module):
    """The base of residual blocks; `activate` applies the activation after the sum."""

    expansion = 1

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
        self.add_layers(in_channels, channels, stride, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.downsample = downsample
        self.activate = build_activation(act_cfg) if activate else nn.Identity()

    def add_layers(self, in_channels: int, channels: int, stride: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        """Add the convolutions of the residual branch."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.activate(self.residual(x) + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    def add_layers(self, in_channels: int, channels: int, stride: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        self.conv1 = ConvBlock(in_channels, channels, 3, stride, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvBlock(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 to twice the width."""

    expansion = 2

    def add_layers(self, in_channels: int, channels: int, stride: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        self.conv1 = ConvBlock(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvBlock(channels, channels, 3, stride, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv3 = ConvBlock(channels, channels * self.expansion, 1, norm_cfg=norm_cfg, act_cfg=None)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


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
class DDRNet(nn.Module):
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
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}

        # stem to 1/8
        width = channels
        self.stem = nn.Sequential(
            ConvBlock(in_channels, width, 3, stride=2, padding=1, **self.style),
            ConvBlock(width, width, 3, stride=2, padding=1, **self.style),
            self.blocks(BasicBlock, width, width, 2),
            nn.ReLU(),
            self.blocks(BasicBlock, width, width * 2, 2, stride=2),
            nn.ReLU(),
        )

        # context branch
        self.context_branch_layers = nn.ModuleList(
            [
                self.blocks(BasicBlock, width * 2, width * 4, 2, stride=2),
                self.blocks(BasicBlock, width * 4, width * 8, 2, stride=2),
                self.blocks(Bottleneck, width * 8, width * 8, 1, stride=2),
            ]
        )

        # exchange between the branches
        linear: Spec = self.style | {"act_cfg": None}
        self.compression_1 = ConvBlock(width * 4, width * 2, 1, **linear)
        self.down_1 = ConvBlock(width * 2, width * 4, 3, stride=2, padding=1, **linear)
        self.compression_2 = ConvBlock(width * 8, width * 2, 1, **linear)
        self.down_2 = nn.Sequential(
            ConvBlock(width * 2, width * 4, 3, stride=2, padding=1, **self.style),
            ConvBlock(width * 4, width * 8, 3, stride=2, padding=1, **linear),
        )

        # detail branch and pooling
        self.spatial_branch_layers = nn.ModuleList(
            [
                self.blocks(BasicBlock, width * 2, width * 2, 2),
                self.blocks(BasicBlock, width * 2, width * 2, 2),
                self.blocks(Bottleneck, width * 2, width * 2, 1),
            ]
        )
        self.spp = DAPPM(width * 16, ppm_channels, width * 4, **self.style)

    def blocks(
        self, block: type[ResidualBlock], in_channels: int, channels: int, count: int, stride: int = 1
    ) -> nn.Module:
        """A chain of blocks, activated between them and not after the last."""
        width = channels * block.expansion
        downsample = None
        if stride != 1 or in_channels != width:
            conv = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)
            init_kaiming(conv)
            downsample = nn.Sequential(conv, build_norm(self.style["norm_cfg"], width))
        layers = [
            block(
                in_channels if index == 0 else width,
                channels,
                stride=stride if index == 0 else 1,
                downsample=downsample if index == 0 else None,
                activate=index < count - 1,
                **self.style,
            )
            for index in range(count)
        ]
        return nn.Sequential(*layers)

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

    def match_size(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like=like, align_corners=self.align_corners)
