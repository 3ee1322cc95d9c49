"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """A copy of the model whose weights follow it slowly: average += momentum * (weight - average)."""

    def __init__(self, model: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self.average = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model; integer buffers are copied."""
        for average, value in zip(self.average.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, self.momentum)
            else:
                average.copy_(value)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """The average's weights in `model` inside, its own afterwards."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average.state_dict())
        try:
            yield
        finally:
            model.load_state_dict(own)
