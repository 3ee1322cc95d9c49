"""Heads that put several adaptive contexts beside their input: APCNet and DMNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Spec, build_activation, build_norm, resize
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


class ContextsHead(DecodeHead):
    """The input and several maps made of it, fused; a subclass adds the modules that make them."""

    def add_contexts(self, name: str, modules: Sequence[nn.Module]) -> None:
        """Add the modules under a name, and the convolution that fuses their outputs with the input."""
        self.context_name = name
        self.add_module(name, nn.ModuleList(modules))
        fused = self.in_channels + len(modules) * self.channels
        self.bottleneck = self.conv_block(fused, self.channels, 3, padding=1)

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        return self.bottleneck(torch.cat([x, *(module(x) for module in getattr(self, self.context_name))], dim=1))


@MODELS.register
class APCHead(ContextsHead):
    """APCNet head (He et al., CVPR 2019): adaptive contexts of several grids beside the input, fused."""

    def __init__(self, *, pool_scales: Sequence[int] = (1, 2, 3, 6), fusion: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        options = (self.in_channels, self.channels, self.conv_block)
        self.add_contexts("acm_modules", [AdaptiveContext(grid, fusion, *options) for grid in pool_scales])


class DynamicConvolution(nn.Module):
    """A depthwise convolution whose `size` x `size` filters are pooled from each image."""

    def __init__(
        self,
        size: int,
        fusion: bool,
        in_channels: int,
        channels: int,
        conv_block: Callable[..., nn.Module],
        norm_cfg: Spec | None,
        act_cfg: Spec,
    ) -> None:
        super().__init__()
        self.size = size
        self.filter_gen_conv = nn.Conv2d(in_channels, channels, 1)
        self.input_redu_conv = conv_block(in_channels, channels, 1)
        self.norm = build_norm(norm_cfg, channels) if norm_cfg is not None else None
        self.activate = build_activation(act_cfg)
        self.fusion_conv = conv_block(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        filters = self.filter_gen_conv(F.adaptive_avg_pool2d(x, self.size))  # N, C, size, size
        x = self.input_redu_conv(x)
        before, after = self.size // 2, (self.size - 1) // 2
        padded = F.pad(x, (before, after, before, after)).flatten(0, 1).unsqueeze(0)  # 1, N * C, H, W
        filtered = F.conv2d(padded, filters.flatten(0, 1).unsqueeze(1), groups=padded.shape[1])
        filtered = filtered.view_as(x)
        if self.norm is not None:
            filtered = self.norm(filtered)
        filtered = self.activate(filtered)
        return filtered if self.fusion_conv is None else self.fusion_conv(filtered)


@MODELS.register
class DMHead(ContextsHead):
    """DMNet head (He et al., ICCV 2019): filters made from the image, of several sizes, beside the input, fused."""

    def __init__(self, *, filter_sizes: Sequence[int] = (1, 3, 5, 7), fusion: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert self.act_cfg is not None
        options = (self.in_channels, self.channels, self.conv_block, self.norm_cfg, self.act_cfg)
        self.add_contexts("dcm_modules", [DynamicConvolution(size, fusion, *options) for size in filter_sizes])
