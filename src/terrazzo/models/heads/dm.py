"""DMNet head (He et al., ICCV 2019): filters made from the image, of several sizes, beside the input, fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.context_filters import ContextsHead
from terrazzo.models.layers import Spec, build_activation, build_norm
from terrazzo.registry import MODELS


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
        padded = F.pad(x, (before, after, before, after))
        filtered = apply_filters(padded, filters)
        if self.norm is not None:
            filtered = self.norm(filtered)
        filtered = self.activate(filtered)
        return filtered if self.fusion_conv is None else self.fusion_conv(filtered)


def apply_filters(x: Tensor, filters: Tensor) -> Tensor:
    """Filter each channel of each image (N, C, H, W) by its own filter (N, C, k, k), without padding."""
    count, channels, height, width = x.shape
    if isinstance(count, int):
        groups = x.reshape(1, count * channels, height, width)
        output = F.conv2d(groups, filters.flatten(0, 1).unsqueeze(1), groups=count * channels)
        return output.unflatten(1, (count, channels))[0]
    size = filters.shape[2]  # a graph cannot have an open number of groups: a sum over the taps
    taps = [
        x[:, :, row : height - size + 1 + row, column : width - size + 1 + column]
        * filters[:, :, row : row + 1, column : column + 1]
        for row in range(size)
        for column in range(size)
    ]
    return reduce(torch.add, taps)


@MODELS.register
class DMHead(ContextsHead):
    """DMNet head (He et al., ICCV 2019): filters made from the image, of several sizes, beside the input, fused."""

    def __init__(self, *, filter_sizes: Sequence[int] = (1, 3, 5, 7), fusion: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert self.act_cfg is not None
        options = (self.in_channels, self.channels, self.conv_block, self.norm_cfg, self.act_cfg)
        self.add_contexts("dcm_modules", [DynamicConvolution(size, fusion, *options) for size in filter_sizes])
