"""The time that a run will take, from one training step on this machine."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch

from terrazzo.config.experiment import make_experiment
from terrazzo.evaluation.scoring import total_loss
from terrazzo.models.build import build_model, input_channels
from terrazzo.models.info import crop_size
from terrazzo.system.devices import choose_device

IMAGES = 2  # of the step that is measured; a batch norm after global pooling needs more than one
SHORT = 2.0  # seconds; a step below it is measured again, as the first one also prepares


def expected_time(config: Any) -> str:
    """`about 5 min on cpu`, for the steps of a run without reading images and validating.

    An empty string for a model that learns from more than images and labels.
    """
    experiment = make_experiment(config)
    if experiment.run is None or experiment.train is None or experiment.run.unit != "step":
        return ""
    device = choose_device()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        model: Any = build_model(experiment.model).to(device)
        height, width = crop_size(config)
        images = torch.randn(IMAGES, input_channels(experiment.model), height, width, device=device)
        labels = torch.zeros(IMAGES, height, width, dtype=torch.long, device=device)
        try:
            seconds = step_seconds(model, images, labels)
        except (RuntimeError, ValueError):  # boundaries, depth, out of memory
            return ""
    total = seconds * experiment.run.length * experiment.train.batch_size / IMAGES
    return f"about {rounded(total)} on {device.type}"


def step_seconds(model: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass; on a CPU at most those computed, as other programs may share it."""
    seconds = 0.0
    for _ in range(2):
        start, computed = time.perf_counter(), time.process_time()
        total_loss(model.loss(images, labels)).backward()
        images.sum().item()  # waits for the device
        seconds = time.perf_counter() - start
        if images.device.type == "cpu":
            seconds = min(seconds, time.process_time() - computed)
        if seconds > SHORT:
            break
    return seconds


def rounded(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
