"""A model's memory: device, layout, and activation checkpointing (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from terrazzo.config.experiment import RunSettings
from terrazzo.errors import UserError


def move_to_device(model: nn.Module, settings: RunSettings, device: torch.device, info: Callable[[str], Any]) -> None:
    """Move a model to its device, in the memory layout of the run's settings."""
    model.to(device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.activation_checkpointing:
        info(f"activation checkpointing: {checkpoint_activations(model)} blocks are recomputed")


def checkpoint_activations(model: nn.Module) -> int:
    """Let the backbone's repeated blocks keep only their inputs; return their number. Raises UserError for none."""
    backbone = model.get_submodule("backbone") if hasattr(model, "backbone") else model
    blocks: list[nn.Module] = []
    for module in backbone.modules():
        children = list(module.children())
        is_row = isinstance(module, (nn.Sequential, nn.ModuleList)) and len(children) > 1
        if is_row and len({type(child) for child in children}) == 1 and any(True for _ in children[0].children()):
            inner = {part for block in blocks for part in block.modules()}
            blocks += [child for child in children if child not in inner]
    if not blocks:
        raise UserError(f"activation_checkpointing: {type(backbone).__name__} has no repeated blocks to recompute")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    return len(blocks)
