"""OCRNet head (Yuan et al., ECCV 2020): the earlier logits gather one region vector a class, pixels read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.cascade import CascadeHead
from terrazzo.models.layers.self_attention import MapAttention
from terrazzo.registry import MODELS


class ObjectContext(MapAttention):
    """Each pixel reads the object regions and is fused with what it read."""

    def __init__(self, *, bottleneck: nn.Module, **projections: Any) -> None:
        super().__init__(**projections)
        self.bottleneck = bottleneck

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([self.read(query, key), query], dim=1))


@MODELS.register
class OCRHead(CascadeHead):
    """OCRNet head (Yuan et al., ECCV 2020): the earlier logits gather one region vector a class, pixels read them.

    `scale` multiplies the logits before their softmax over the image.
    """

    def __init__(self, *, ocr_channels: int, scale: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        wide, narrow = self.channels, ocr_channels
        self.object_context_block = ObjectContext(
            key=nn.Sequential(self.conv_block(wide, narrow, 1), self.conv_block(narrow, narrow, 1)),
            query=nn.Sequential(self.conv_block(wide, narrow, 1), self.conv_block(narrow, narrow, 1)),
            value=self.conv_block(wide, narrow, 1),
            out=self.conv_block(narrow, wide, 1),
            bottleneck=self.conv_block(2 * wide, wide, 1),
        )
        self.bottleneck = self.conv_block(self.in_channels, self.channels, 3, padding=1)

    def regions(self, x: Tensor, logits: Tensor) -> Tensor:
        """The mean of `x` over each class's soft region: (N, channels, K, 1)."""
        weights = (self.scale * logits.flatten(2)).softmax(2)  # N, K, H * W
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)

    def features(self, inputs: Features, previous: Tensor) -> Tensor:
        x = self.bottleneck(self.select(inputs))
        return self.object_context_block(x, self.regions(x, self.resize(previous, like=x)))
