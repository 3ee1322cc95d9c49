"""What the heads share that put a context module between the two convolutions of an FCN head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.fcn import FCNHead


class FCNContextHead(FCNHead):
    """convolution, `context`, convolution; the input concatenated where wished."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(num_convs=2, **kwargs)

    def context(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        raise NotImplementedError

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        reduce, refine = self.convs
        features = refine(self.context(reduce(x)))
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return features
