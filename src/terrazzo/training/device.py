"""A model on its device: torch's algorithms, memory layout, and activation checkpointing (Chen et al., 2016)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from terrazzo.config.experiment import RunSettings
from terrazzo.errors import UserError


@contextmanager
def chosen_algorithms(settings: RunSettings) -> Iterator[None]:
    """Let torch use the algorithms of the settings inside; most choices concern GPUs only."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    searched = cudnn.benchmark
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first product
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = settings.cudnn_benchmark and not settings.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = searched


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
