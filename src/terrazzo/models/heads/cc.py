"""CCNet head (Huang et al., ICCV 2019): twice along rows and columns reaches the whole image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.fcn_context import FCNContextHead
from terrazzo.models.layers.self_attention import Scale
from terrazzo.registry import MODELS


class CrissCrossAttention(nn.Module):
    """Each position reads its own row and column."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        height = x.shape[2]
        column = torch.einsum("nchw,nciw->nhwi", query, key)
        itself = torch.eye(height, dtype=torch.bool, device=x.device).unsqueeze(1)  # its row has it already
        column = column.masked_fill(itself, float("-inf"))
        row = torch.einsum("nchw,nchj->nhwj", query, key)
        attention = torch.cat([column, row], dim=3).softmax(3)  # N, H, W, H + W
        context = torch.einsum("nciw,nhwi->nchw", value, attention[..., :height])
        context = context + torch.einsum("nchj,nhwj->nchw", value, attention[..., height:])
        return self.gamma(context) + x


@MODELS.register
class CCHead(FCNContextHead):
    """CCNet head (Huang et al., ICCV 2019): twice along rows and columns reaches the whole image."""

    def __init__(self, *, recurrence: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrence = recurrence
        self.cca = CrissCrossAttention(self.channels)

    def context(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self.cca(x)
        return x
