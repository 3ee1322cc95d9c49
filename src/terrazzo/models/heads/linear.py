"""A linear classifier of features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.registry import MODELS


@MODELS.register
class LinearHead(DecodeHead):
    """Batch norm and one linear classifier of each pixel (Oquab et al., DINOv2, TMLR 2024)."""

    def __init__(self, *, in_channels: int, channels: int | None = None, **kwargs: Any) -> None:
        super().__init__(in_channels=in_channels, channels=in_channels, **kwargs)
        self.norm = nn.BatchNorm2d(in_channels)

    def features(self, inputs: Features) -> Tensor:
        return self.norm(self.select(inputs))
