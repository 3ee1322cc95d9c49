"""MSCAN, the backbone of SegNeXt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_activation, build_norm
from terrazzo.models.layers.init import init_convolutions
from terrazzo.models.layers.tokens import lay_for_depthwise, pair
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.naming import Naming
from terrazzo.registry import MODELS

NAMINGS = (
    Naming(
        "the SegNeXt release",
        mark=r"block1\.0\.mlp\.dwconv\.dwconv\.weight",
        rules=((r"\.dwconv\.dwconv\.", ".dwconv."),),
        drop=r"head\.",
    ),
)


Size = int | Sequence[int]


def stem(in_channels: int, channels: int, *, act_cfg: Spec, norm_cfg: Spec) -> nn.Module:
    """Two strided 3x3 convolutions."""
    layers = nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1),
        build_norm(norm_cfg, channels // 2),
        build_activation(act_cfg),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        build_norm(norm_cfg, channels),
    )
    return nn.Sequential(OrderedDict(proj=layers))


class SpatialGate(nn.Module):
    """Weight each position and channel by strip convolutions of several lengths around it.

    The first kernel is square; each later one is a pair (1, length) followed by its transpose.
    """

    def __init__(self, channels: int, kernel_sizes: Sequence[Size], paddings: Sequence[Size]) -> None:
        super().__init__()

        def depthwise(kernel_size: Size, padding: Size) -> nn.Conv2d:
            return nn.Conv2d(channels, channels, pair(kernel_size), padding=pair(padding), groups=channels)

        self.conv0 = depthwise(kernel_sizes[0], paddings[0])
        self.strips = range(len(kernel_sizes) - 1)
        for index, kernel_size, padding in zip(self.strips, kernel_sizes[1:], paddings[1:], strict=True):
            self.add_module(f"conv{index}_1", depthwise(kernel_size, padding))
            self.add_module(f"conv{index}_2", depthwise(pair(kernel_size)[::-1], pair(padding)[::-1]))
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv0(x)
        context = near
        for index in self.strips:
            context = context + getattr(self, f"conv{index}_2")(getattr(self, f"conv{index}_1")(near))
        return self.conv3(context) * x


class SpatialAttention(nn.Module):
    """The gate between two 1x1 convolutions, with a shortcut."""

    def __init__(self, channels: int, kernel_sizes: Sequence[Size], paddings: Sequence[Size], *, act_cfg: Spec) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.activation = build_activation(act_cfg)
        self.spatial_gating_unit = SpatialGate(channels, kernel_sizes, paddings)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class ConvFeedForward(nn.Module):
    """1x1, depthwise 3x3 (if `depthwise`), activation, 1x1."""

    def __init__(self, channels: int, hidden: int, *, act_cfg: Spec, drop: float, depthwise: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if depthwise else nn.Identity()
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.dwconv(self.fc1(x))))))


class ScaledBlock(nn.Module):
    """Pre-norm: what mixes the positions (`attn`), then the feed-forward network, each scaled by channel."""

    def __init__(
        self, channels: int, attn: nn.Module, mlp: nn.Module, *, norm_cfg: Spec, drop_path_rate: float, scale: float
    ) -> None:
        super().__init__()
        self.norm1 = build_norm(norm_cfg, channels)
        self.attn = attn
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = build_norm(norm_cfg, channels)
        self.mlp = mlp
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), scale))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(x, self.drop_path(self.attn(self.norm1(x))), self.layer_scale_1[:, None, None])
        return torch.addcmul(x, self.drop_path(self.mlp(self.norm2(x))), self.layer_scale_2[:, None, None])


@MODELS.register
class MSCAN(Backbone):
    """Multi-scale convolutional attention network (SegNeXt: Guo et al., NeurIPS 2022) -> the maps of all stages."""

    stage_parts = ("patch_embed{1}", "block{1}", "norm{1}")
    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        depths: Sequence[int] = (3, 4, 6, 3),
        num_stages: int = 4,
        attention_kernel_sizes: Sequence[Size] = (5, (1, 7), (1, 11), (1, 21)),
        attention_kernel_paddings: Sequence[Size] = (2, (0, 3), (0, 5), (0, 10)),
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "SyncBN", "requires_grad": True},  # noqa: B006 - never written to
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.num_stages = num_stages

        # stages: embedding, blocks, norm
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        for stage in range(num_stages):
            width = embed_dims[stage]
            if stage == 0:
                embed = stem(in_channels, width, act_cfg=act_cfg, norm_cfg=norm_cfg)
            else:
                conv = nn.Conv2d(embed_dims[stage - 1], width, 3, stride=2, padding=1)
                embed = nn.Sequential(OrderedDict(proj=conv, norm=build_norm(norm_cfg, width)))
            blocks = nn.ModuleList()
            for _ in range(depths[stage]):
                attn = SpatialAttention(width, attention_kernel_sizes, attention_kernel_paddings, act_cfg=act_cfg)
                mlp = ConvFeedForward(width, int(width * mlp_ratios[stage]), act_cfg=act_cfg, drop=drop_rate)
                blocks.append(ScaledBlock(width, attn, mlp, norm_cfg=norm_cfg, drop_path_rate=next(rates), scale=1e-2))
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(f"block{stage + 1}", blocks)
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(width))
        init_convolutions(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f"patch_embed{stage}")(lay_for_depthwise(x))
            for block in getattr(self, f"block{stage}"):
                x = block(x)
            x = getattr(self, f"norm{stage}")(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            outputs.append(x)
        return tuple(outputs)
