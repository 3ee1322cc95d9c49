"""UNet's decoder on the maps of any encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.registry import MODELS


@MODELS.register
class UNetHead(DecodeHead):
    """UNet's decoder (Ronneberger et al., MICCAI 2015) on the maps of any encoder, its finest step `channels` wide.

    Each step resizes the coarser map to the finer one, joins both, and convolves twice; the steps double in width.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"input_transform": "multiple_select"} | kwargs))
        *finer, coarsest = self.in_channels
        steps, below = [], coarsest
        for doublings, width in reversed([*enumerate(finer)]):
            own = min(self.channels * 2**doublings, 512)
            steps.append(
                nn.Sequential(
                    self.conv_block(below + width, own, 3, padding=1), self.conv_block(own, own, 3, padding=1)
                )
            )
            below = own
        self.steps = nn.ModuleList(steps)

    def features(self, inputs: Features) -> Tensor:
        *finer, x = self.select(inputs)
        for step, skip in zip(self.steps, reversed(finer), strict=True):
            x = step(torch.cat([self.resize(x, like=skip), skip], dim=1))
        return x  # N, channels, H, W of the finest map
