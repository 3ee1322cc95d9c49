"""The head of a run's log: machine, model, cost, batch, data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from terrazzo.models.build import build_model
from terrazzo.models.info import crop_size, measure
from terrazzo.training.monitoring.log import environment

if TYPE_CHECKING:
    from terrazzo.training.trainer import Trainer


def tell_of_run(trainer: Trainer) -> None:
    """Say what is about to be trained, on what, and what one image costs."""
    experiment, log, order = trainer.experiment, trainer.log, trainer.order
    assert experiment.train is not None
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    log.info(environment(trainer.device))
    cost = flops(trainer.config.to_dict()) if trainer.group.is_main else ""
    log.info(f"model {type(trainer.model).__name__}, {parameters / 1e6:.2f} M parameters, {trainer.precision}{cost}")
    sharded = " (weights sharded among them)" if trainer.parallel.is_sharded else ""
    devices = "1 device" if trainer.group.size == 1 else f"{trainer.group.size} devices{sharded}"
    log.info(
        f"{devices}, batch size {experiment.train.batch_size} per device, {order.batch_size} in all; "
        f"{trainer.total} iterations, {order.batches_per_epoch} an epoch"
    )
    if trainer.rate_note:
        log.info(trainer.rate_note)
    sizes = f"{len(trainer.train_set)} training images"
    if trainer.val_set is not None:
        sizes += f", {len(trainer.val_set)} validation images"
    log.info(f"{sizes}; {len(trainer.train_set.classes)} classes: {', '.join(trainer.train_set.classes)}")


def flops(config: dict[str, Any]) -> str:
    """`; 12.3 GFLOPs for an image of 512x512`, of inference, counted without computing anything.

    A model that reads values from its tensors can only be counted by running it.
    """
    height, width = crop_size(config)
    backbone = config["model"].get("backbone")
    channels = backbone.get("in_channels", 3) if isinstance(backbone, dict) else 3
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say of the model has been said
        try:
            with torch.device("meta"):
                model = build_model(config)
            info = measure(model, torch.empty((1, channels, height, width), device="meta"))
        except (RuntimeError, NotImplementedError, ValueError):
            return "; its FLOPs: terrazzo model info"
    return f"; {info.flops / 1e9:.3g} GFLOPs for an image of {height}x{width}"
