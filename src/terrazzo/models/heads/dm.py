"""DMNet head (He et al., ICCV 2019): filters made from the image, of several sizes, beside the input, fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
