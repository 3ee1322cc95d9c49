"""The header of a run's log: environment, model, cost, batch, length, data."""

from __future__ import annotations

import copy
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import terrazzo
from terrazzo.arguments import MISTAKES
from terrazzo.config.reading.section import lookup
from terrazzo.errors import UserError
from terrazzo.models.build import input_channels
from terrazzo.models.channels import mismatch, run_auxiliary_heads
from terrazzo.models.info import crop_size, has_crop, measure
from terrazzo.system.printable import caption
from terrazzo.training.state import TrainingState


def run_header(state: TrainingState, cost: str, rate_note: str) -> str:
    """The lines that open a log: the model, its data, and the length of the run."""
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
        "" if state.distillation is None else str(state.distillation),
        f"{len(data)} training images{validation}; {len(data.classes)} classes: "
        + ", ".join(map(caption, data.classes)),
    ]
    return "\n".join(filter(None, lines))


def inference_cost(model: nn.Module, config: Mapping[str, Any]) -> str:
    """`; 12.3 GFLOPs for an image of 512x512`, of inference, counted without computing anything.

    A model that reads values from its tensors can only be counted by running it. Raises UserError, with the part at
    fault, for one that cannot run on the crops of the config.
    """
    height, width = crop_size(config)
    images = torch.empty((1, input_channels(config["model"]), height, width), device="meta")
    copied = meta_copy(model)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the model has given its warnings
        try:
            info = measure(copied, images)
            run_auxiliary_heads(copied, images)
        except MISTAKES as problem:
            reason = mismatch(meta_copy(model).eval(), images) or str(problem)
            if isinstance(problem, NotImplementedError) or "meta" in reason.lower() or not has_crop(config):
                return "; its FLOPs: terrazzo model info"
            part = failing_part(copied, problem)
            where = f"model{'.' * bool(part)}{part}"
            kind = "" if isinstance(problem, UserError) else f"{type(problem).__name__}: "
            raise UserError(
                f"{found_origin(config, where)}the model cannot run on images of {height}x{width}: at {where}, "
                f"{kind}{' '.join(reason.split())[:300]}"
            ) from problem
    return f"; {info.flops / 1e9:.3g} GFLOPs for an image of {height}x{width}"


def failing_part(model: nn.Module, problem: BaseException) -> str:
    """The name of the innermost module that was running when an exception was raised."""
    names = {module: name for name, module in model.named_modules()}
    frames = [frame for frame, _ in traceback.walk_tb(problem.__traceback__)]
    running = [
        names[own] for frame in frames if isinstance(own := frame.f_locals.get("self"), nn.Module) and own in names
    ]
    return running[-1] if running else ""


def found_origin(config: Mapping[str, Any], where: str) -> str:
    """`FILE:LINE: ` of the nearest part of the config around a module, where it is known."""
    parts = where.split(".")
    for count in range(len(parts), 0, -1):
        if lookup(config, ".".join(parts[:count])) is not None:
            origin = config.origin(".".join([*parts[:count], "type"])) if hasattr(config, "origin") else None
            return f"{origin}: " if origin else ""
    return ""


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
