"""The time that a run will take, from one training step on this machine."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from terrazzo.config.experiment import make_experiment
from terrazzo.evaluation.scoring import total_loss
from terrazzo.models.build import build_model, input_channels
from terrazzo.models.info import crop_size
from terrazzo.system.devices import choose_device
from terrazzo.training.device import move_to_device
from terrazzo.training.optim.precision import Precision
from terrazzo.training.setup import training_settings

IMAGES = 2  # of the step that is measured; a batch norm after global pooling needs more than one
SHORT = 2.0  # seconds; a step below it is measured again, as the first one also prepares


@dataclass(frozen=True)
class StepCost:
    """The cost of a training step for each of its images."""

    seconds: float
    memory: int  # bytes that the forward pass keeps for the backward one


def expected_time(config: Any) -> str:
    """`about 5 min on cpu`, for the steps of a run without reading images and validating.

    An empty string for a model that learns from more than images and labels.
    """
    experiment = make_experiment(config)
    if experiment.run is None or experiment.train is None or experiment.run.unit != "step":
        return ""
    device = choose_device()
    try:
        cost = measure_step(config, device)
    except (RuntimeError, ValueError):  # boundaries, depth, out of memory
        return ""
    total = cost.seconds * experiment.run.length * experiment.train.batch_size
    return f"about {rounded(total)} on {device.type}"


def measure_step(config: Any, device: torch.device) -> StepCost:
    """Measure a step of a config's run on made-up images.

    Raises RuntimeError or ValueError for a model that learns from more than images and labels.
    """
    experiment = make_experiment(config)
    _, updates, settings = training_settings(experiment)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        model: Any = build_model(experiment.model)
        move_to_device(model, settings, device, lambda text: None)
        height, width = crop_size(config)
        images = torch.randn(IMAGES, input_channels(experiment.model), height, width, device=device)
        labels = torch.zeros(IMAGES, height, width, dtype=torch.long, device=device)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}  # bytes of storages, by their address

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        precision, seconds = Precision(device, updates.amp), 0.0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for _ in range(2):
                kept.clear()
                seconds = step_seconds(model, precision, images, labels)
                if seconds > SHORT:
                    break
    return StepCost(seconds / IMAGES, sum(kept.values()) // IMAGES)


def step_seconds(model: Any, precision: Precision, images: Tensor, labels: Tensor) -> float:
    """Seconds of a forward and a backward pass; on a CPU at most those computed, as other programs may share it."""
    start, computed = time.perf_counter(), time.process_time()
    with precision.autocast():
        losses = model.loss(images, labels)
    precision.backward(total_loss(losses))
    images.sum().item()  # waits for the device
    seconds = time.perf_counter() - start
    return min(seconds, time.process_time() - computed) if images.device.type == "cpu" else seconds


def rounded(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
