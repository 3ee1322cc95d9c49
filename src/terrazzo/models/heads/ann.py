"""Asymmetric non-local head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import resize
from terrazzo.models.layers.self_attention import SelfAttention
from terrazzo.registry import MODELS


class PyramidPool(nn.Module):
    """Averages on several grids in one row: (N, C, H, W) -> (N, C, sum of grid * grid, 1)."""

    def __init__(self, scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, grid).flatten(2) for grid in self.scales], dim=2).unsqueeze(3)


class PyramidAttention(nn.Module):
    """Attention of a map, at several scales, to samples of another; the sum of what it read is fused with it."""

    def __init__(self, stages: Sequence[SelfAttention], bottleneck: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.bottleneck = bottleneck

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        contexts = [resize(stage(query, key), like=query) for stage in self.stages]
        return self.bottleneck(torch.cat([reduce(torch.add, contexts), query], dim=1))


@MODELS.register
class ANNHead(DecodeHead):
    """ANN head (Zhu et al., ICCV 2019): the coarse map reads the fine one, then itself, both thinned by a pyramid."""

    def __init__(
        self,
        *,
        project_channels: int,
        query_scales: Sequence[int] = (1,),
        key_pool_scales: Sequence[int] = (1, 3, 6, 8),
        **kwargs: Any,
    ) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        low, high = self.in_channels
        pools = (project_channels, query_scales, key_pool_scales)
        self.fusion = PyramidAttention(self.stages(low, high, *pools), self.conv_block(2 * high, high, 1, act_cfg=None))
        self.bottleneck = self.conv_block(high, self.channels, 3, padding=1)
        self.context = PyramidAttention(
            self.stages(self.channels, self.channels, *pools, shared=True),
            self.conv_block(2 * self.channels, self.channels, 1),
        )

    def stages(
        self,
        key_channels: int,
        query_channels: int,
        channels: int,
        query_scales: Sequence[int],
        key_scales: Sequence[int],
        shared: bool = False,
    ) -> list[SelfAttention]:
        """One attention for each query scale; `shared` keys and queries have one projection."""
        stages = []
        for scale in query_scales:
            query = self.conv_block(query_channels, channels, 1)
            stages.append(
                SelfAttention(
                    key=query if shared else self.conv_block(key_channels, channels, 1),
                    query=query,
                    value=nn.Conv2d(key_channels, channels, 1),
                    out=nn.Conv2d(channels, query_channels, 1),
                    key_pool=PyramidPool(key_scales),
                    query_pool=nn.MaxPool2d(scale, ceil_mode=True) if scale > 1 else None,
                )
            )
        return stages

    def features(self, inputs: Features) -> Tensor:
        low, high = self.select(inputs)
        x = self.bottleneck(self.fusion(high, low))
        return self.context(x, x)
