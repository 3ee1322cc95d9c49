"""SETR's multi-level aggregation neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, build_norm
from terrazzo.registry import MODELS


class MultiLevelAggregation(nn.Module):
    """Project every level, add the levels from the deepest up, convolve each sum."""

    def __init__(self, in_channels: Sequence[int], out_channels: int, **style: Any) -> None:
        super().__init__()
        self.channel_proj = nn.ModuleList(ConvBlock(width, out_channels, 1, **style) for width in in_channels)
        self.feat_extract = nn.ModuleList(
            ConvBlock(out_channels, out_channels, 3, padding=1, **style) for _ in in_channels
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        projected = [project(x) for project, x in zip(self.channel_proj, inputs, strict=True)]
        sums = projected[-1:]
        for x in reversed(projected[:-1]):
            sums.append(sums[-1] + x)
        return tuple(conv(x) for conv, x in zip(self.feat_extract, sums, strict=True))


@MODELS.register
class MLANeck(nn.Module):
    """SETR-MLA neck (Zheng et al., CVPR 2021): layer norm on every map, then aggregation, deepest level first."""

    keeps_specs = ("norm_layer",)

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        norm_layer: Spec = {"type": "LN", "eps": 1e-6},  # noqa: B006 - never written to
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.ModuleList(build_norm(norm_layer, width) for width in in_channels)
        self.mla = MultiLevelAggregation(in_channels, out_channels, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        normed = [norm(x.movedim(1, -1)).movedim(-1, 1) for norm, x in zip(self.norm, inputs, strict=True)]
        return self.mla(normed)
