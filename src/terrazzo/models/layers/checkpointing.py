"""Recomputing activations in the backward pass, to save memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def maybe_checkpoint(function: Callable[..., Any], *inputs: Any, enabled: bool) -> Any:
    """Call `function`; with `enabled` (a config's `with_cp`) its activations are recomputed in the backward pass."""
    if enabled and torch.is_grad_enabled():
        from torch.utils.checkpoint import checkpoint  # it may load the compiler

        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)
