"""The header of a run's log: environment, model, cost, batch, length, data."""

from __future__ import annotations

import copy
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import terrazzo
from terrazzo.models.info import crop_size, measure
from terrazzo.training.state import TrainingState


def run_header(state: TrainingState, cost: str, rate_note: str) -> str:
    """What is trained, on what, and for how long."""
    device, sampler, data, devices = state.device, state.sampler, state.train_set, state.group.size
    on_gpu = device.type == "cuda"
    best = state.best.target
    decides = f"save_best: {best.name}, the {'lower' if best.lower_is_better else 'higher'} the better"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    sharded = " (weights sharded among them)" if state.parallel.is_sharded else ""
    counted = "1 device" if devices == 1 else f"{devices} devices{sharded}"
    validation = f", {len(state.val_set)} validation images" if state.val_set is not None else ""
    lines = [
        f"terrazzo {terrazzo.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        f"device {device} ({name})",
        f"command: {' '.join(sys.argv)}",
        f"model {type(state.model).__name__}, {parameters / 1e6:.2f} M parameters, {state.precision}{cost}",
        f"{counted}, batch size {state.loader.batch_size} per device, {sampler.batch_size} in total; "
        f"{state.total} iterations, {sampler.batches_per_epoch} per epoch",
        rate_note,
        "" if best.name == "auto" else decides,
        f"{len(data)} training images{validation}; {len(data.classes)} classes: {', '.join(data.classes)}",
    ]
    return "\n".join(filter(None, lines))


def inference_cost(model: nn.Module, config: Mapping[str, Any]) -> str:
    """`; 12.3 GFLOPs for an image of 512x512`, of inference, counted without computing anything.

    A model that reads values from its tensors can only be counted by running it.
    """
    height, width = crop_size(config)
    backbone = config["model"].get("backbone")
    channels = backbone.get("in_channels", 3) if isinstance(backbone, Mapping) else 3
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the model has given its warnings
        try:
            info = measure(meta_copy(model), torch.empty((1, channels, height, width), device="meta"))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return "; its FLOPs: terrazzo model info"
    return f"; {info.flops / 1e9:.3g} GFLOPs for an image of {height}x{width}"


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of a model whose tensors have shapes and no values; no weight is copied."""
    copies: dict[int, Any] = {}
    for module in model.modules():
        for value in tree_leaves(vars(module)):
            if isinstance(value, Tensor) and id(value) not in copies:
                empty = value.detach().to("meta")
                is_parameter = isinstance(value, nn.Parameter)
                copies[id(value)] = nn.Parameter(empty, value.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, copies)
