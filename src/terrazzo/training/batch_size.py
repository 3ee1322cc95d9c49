"""The largest batch that fits into a device's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from terrazzo.data.build import open_dataset
from terrazzo.data.loaders import collate
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import classes_of
from terrazzo.evaluation.validation_loss import total_loss
from terrazzo.models.build import build_model
from terrazzo.sample import Batch
from terrazzo.training.memory import place
from terrazzo.training.optim.build import build_optimizer
from terrazzo.training.optim.precision import Precision


def largest(fits: Callable[[int], bool], limit: int = 4096) -> int:
    """The largest number up to `limit` that fits, 0 for none: doubled until it does not, then halved in between."""
    good, bad = 0, 1
    while bad <= limit and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, limit + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def find_batch_size(experiment: Any, device: torch.device) -> int:
    """How many samples fit into one training step. Raises UserError where not even one does."""
    model: Any = build_model(experiment.model)
    place(model, experiment.run, device, print)
    model.train()
    settings = experiment.optimizer
    optimizer = build_optimizer(model, settings.optimizer, settings.paramwise, settings.constructor)
    precision = Precision(device, settings.amp)
    samples = open_dataset(replace(experiment.train, num_workers=0), classes_of(model), "train_dataloader")

    def fits(count: int) -> bool:
        batch = collate([samples[0, index % len(samples)] for index in range(count)])
        return does_step(model, optimizer, precision, batch, device)

    found = largest(fits)
    if not found:
        raise UserError("not even one image fits: take a smaller crop or model, --amp or activation_checkpointing")
    return found


def does_step(model: Any, optimizer: Any, precision: Precision, batch: Any, device: torch.device) -> bool:
    """Whether a training step on a batch fits into memory; nothing of it stays."""
    if not isinstance(batch, Batch):
        raise UserError(batch.message)
    try:
        moved = batch.to(device)
        images, targets = model.preprocess.pad(model.preprocess(moved.image), moved.targets, moved.sizes)
        labels = targets.pop("label").long() if "label" in targets else targets["depth"]
        with precision.autocast():
            losses = model.loss(images, labels, **targets)
        precision.backward(total_loss(losses))
        precision.update(optimizer, model, None)
    except torch.OutOfMemoryError:
        return False
    finally:
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def advice(found: int, planned: int) -> str:
    """What to do with the number."""
    return (
        f"up to {found} images of this config fit into one step on this device (the config has {planned}); to leave\n"
        f"some memory free: --cfg-options train_dataloader.batch_size={max(1, int(0.9 * found))} --auto-scale-lr"
    )
