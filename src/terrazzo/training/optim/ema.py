"""Averages of the weights, which are scored and saved in place of the trained ones."""

from __future__ import annotations

import copy

import torch
from torch import nn

from terrazzo.config.experiment import Averaging


class EMA:
    """A copy of the model whose weights follow it slowly: average += momentum * (weight - average).

    The first updates follow faster, by 9 / (9 + n) at the n-th, so that the random start has no weight in a short run.
    With kind "swa" it is the plain mean of the weights (Izmailov et al., UAI 2018). Up to update `begin` it is a copy.
    """

    def __init__(self, model: nn.Module, settings: Averaging, begin: int = 0) -> None:
        self.settings, self.begin = settings, begin
        self.average = copy.deepcopy(model).requires_grad_(False)

    def share(self, count: int) -> float:
        """The share of the weights in the `count`-th update, counted from 1."""
        number = count - self.begin
        if number < 1:
            return 1.0
        return 1 / number if self.settings.kind == "swa" else max(self.settings.momentum, 9 / (9 + number))

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Move the average towards the model for the `count`-th time, from 1; integer buffers are copied."""
        share = self.share(count)
        for average, value in zip(self.average.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, share)
            else:
                average.copy_(value)
