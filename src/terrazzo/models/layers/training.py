"""Parts that act in training only: stochastic depth, and recomputing activations to save memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError

MOST_LAYERS = 20_000


class DropPath(nn.Module):
    """Drop a residual branch for whole samples with probability `drop_prob` (Huang et al., ECCV 2016)."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Return the stochastic depth of each of `depth` layers, growing evenly from 0 to `rate`.

    Raises UserError for more layers than any model has, before they take memory.
    """
    if depth > MOST_LAYERS:
        raise UserError(f"a backbone of {depth:,} layers: more than {MOST_LAYERS:,} layers cannot be built")
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


def maybe_checkpoint(function: Callable[..., Any], *inputs: Any, enabled: bool) -> Any:
    """Call `function`; with `enabled` (a config's `with_cp`) its activations are recomputed in the backward pass."""
    if enabled and torch.is_grad_enabled():
        from torch.utils.checkpoint import checkpoint  # it may load the compiler

        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)
