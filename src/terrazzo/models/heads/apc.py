"""APCNet head (He et al., CVPR 2019): adaptive contexts of several grids beside the input, fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.context_filters import ContextsHead
from terrazzo.models.layers import resize
from terrazzo.registry import MODELS


class AdaptiveContext(nn.Module):
    """Weights of each position for the cells of a pooled grid, from its features and the mean of the image."""

    def __init__(
        self, grid: int, fusion: bool, in_channels: int, channels: int, conv_block: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        self.grid = grid
        self.pooled_redu_conv = conv_block(in_channels, channels, 1)
        self.input_redu_conv = conv_block(in_channels, channels, 1)
        self.global_info = conv_block(channels, channels, 1)
        self.gla = nn.Conv2d(channels, grid * grid, 1)
        self.residual_conv = conv_block(channels, channels, 1)
        self.fusion_conv = conv_block(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        cells = self.pooled_redu_conv(F.adaptive_avg_pool2d(x, self.grid)).flatten(2)  # N, C, cells
        x = self.input_redu_conv(x)
        whole = self.global_info(F.adaptive_avg_pool2d(x, 1))
        affinity = self.gla(x + resize(whole, like=x)).sigmoid()  # N, cells, H, W
        context = (cells @ affinity.flatten(2)).unflatten(2, x.shape[2:])
        x = F.relu(self.residual_conv(context) + x)
        return x if self.fusion_conv is None else self.fusion_conv(x)


@MODELS.register
class APCHead(ContextsHead):
    """APCNet head (He et al., CVPR 2019): adaptive contexts of several grids beside the input, fused."""

    def __init__(self, *, pool_scales: Sequence[int] = (1, 2, 3, 6), fusion: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        options = (self.in_channels, self.channels, self.conv_block)
        self.add_contexts("acm_modules", [AdaptiveContext(grid, fusion, *options) for grid in pool_scales])
