"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A copy of the model whose weights follow it slowly: average += momentum * (weight - average).

    The first updates follow faster, by 9 / (9 + n) at the n-th, so that the random start does not weigh on a short run.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self.average = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Move the average towards the model for the `count`-th time, from 1; integer buffers are copied."""
        momentum = max(self.momentum, 9 / (9 + count))
        for average, value in zip(self.average.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, momentum)
            else:
                average.copy_(value)
