"""The header of a run's log: model, cost, batch, length, data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from terrazzo.models.info import crop_size, measure


def model_line(model: nn.Module, precision: str, cost: str) -> str:
    """The model's type, size, precision and cost."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"model {type(model).__name__}, {parameters / 1e6:.2f} M parameters, {precision}{cost}"


def length_line(
    devices: int, is_sharded: bool, batch_size: int, images_per_step: int, steps: int, steps_per_epoch: int
) -> str:
    """The images of a step, and the steps of an epoch and of the run."""
    sharded = " (weights sharded among them)" if is_sharded else ""
    counted = "1 device" if devices == 1 else f"{devices} devices{sharded}"
    return (
        f"{counted}, batch size {batch_size} per device, {images_per_step} in total; "
        f"{steps} iterations, {steps_per_epoch} per epoch"
    )


def data_line(train_set: Any, val_set: Any) -> str:
    """The images of each split, and the classes."""
    sizes = f"{len(train_set)} training images"
    if val_set is not None:
        sizes += f", {len(val_set)} validation images"
    return f"{sizes}; {len(train_set.classes)} classes: {', '.join(train_set.classes)}"


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
