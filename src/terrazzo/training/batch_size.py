"""The largest batch that fits into a device's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from terrazzo.config.experiment import Experiment
from terrazzo.data.build import open_dataset
from terrazzo.data.loaders import collate
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import classes_of
from terrazzo.evaluation.scoring import total_loss
from terrazzo.models.build import build_model
from terrazzo.models.protocols import as_segmentor
from terrazzo.sample import Batch
from terrazzo.training.device import move_to_device
from terrazzo.training.optim.build import build_optimizer
from terrazzo.training.optim.precision import Precision
from terrazzo.training.setup import distillation_of, training_settings


def largest(fits: Callable[[int], bool], limit: int = 4096) -> int:
    """The largest number up to `limit` that fits, or 0: doubled while it fits, then found by bisection."""
    good, bad = 0, 1
    while bad <= limit and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, limit + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def find_batch_size(experiment: Experiment, device: torch.device) -> int:
    """The number of samples that fit into one training step. Raises UserError if not even one does."""
    loader, updates, settings = training_settings(experiment)
    model = build_model(experiment.model)
    move_to_device(model, settings, device, print)
    model.train()
    optimizer = build_optimizer(model, updates.optimizer, updates.paramwise, updates.constructor)
    precision = Precision(device, updates.amp)
    segmentor = as_segmentor(model)
    samples = open_dataset(replace(loader, num_workers=0), classes_of(segmentor), "train_dataloader")
    distillation = distillation_of(experiment, model, samples, device)

    def fits(count: int) -> bool:
        batch = collate([samples[0, index % len(samples)] for index in range(count)])
        if not isinstance(batch, Batch):
            raise UserError(batch.message)
        try:
            batch = batch.to(device)
            images, targets = segmentor.preprocess.pad(segmentor.preprocess(batch.image), batch.targets, batch.sizes)
            labels = targets.pop("label").long() if "label" in targets else targets["depth"]
            with precision.autocast():
                losses = segmentor.loss(images, labels, **targets)
                if distillation is not None:
                    losses |= distillation.losses(batch, images.shape[-2:])
            precision.backward(total_loss(losses))
            precision.update(optimizer, model, None)
        except torch.OutOfMemoryError:
            return False
        finally:
            optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    found = largest(fits)
    if not found:
        raise UserError("not even one image fits: take a smaller crop or model, --amp or activation_checkpointing")
    return found
