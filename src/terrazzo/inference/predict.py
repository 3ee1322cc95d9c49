"""From a loaded batch to what models say of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.inference.argmax import LogitsGeometry
from terrazzo.inference.modes import infer
from terrazzo.inference.scores import Scores, View
from terrazzo.sample import Batch, Sample


@torch.inference_mode()
def predict_batch(models: Sequence[Any], batch: Batch) -> list[Scores]:
    """What the models, as their mean, say of each image."""
    views = [batch_views(model, batch) for model in models]
    return [Scores(one, models[0].final_head.threshold) for one in zip(*views, strict=True)]


def batch_views(model: Any, batch: Batch) -> list[View]:
    """Each image's logits; images of unlike sizes are run one by one."""
    if len(set(batch.sizes)) == 1:
        runs = [batch.image]
    else:
        runs = [
            image[None, :, :height, :width] for image, (height, width) in zip(batch.image, batch.sizes, strict=True)
        ]
    samples, views = iter(batch.samples), []
    for images in runs:
        logits, input_size = raw_logits(model, images)
        size = images.shape[-2:]
        views += [(own, logits_geometry(own, input_size, size, next(samples), model)) for own in logits]
    return views


def raw_logits(model: Any, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Logits (N, K, h, w) of raw RGB images (N, C, H, W), and the size that the network was given."""
    padded = model.preprocess.pad_for_test(model.preprocess(images))
    logits = infer(model, padded)
    if logits.device.type not in ("cpu", "cuda"):  # where operators of what follows are missing
        logits = logits.cpu()
    return logits, (padded.shape[2], padded.shape[3])


def logits_geometry(
    logits: Tensor, input_size: tuple[int, int], size: Sequence[int], sample: Sample, model: Any
) -> LogitsGeometry:
    """How logits (K, h, w) become the stored image's: without padding and flip; `size` is the loaded image's."""
    left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
    return LogitsGeometry(
        head_size=(logits.shape[1], logits.shape[2]),
        input_size=input_size,
        own_size=(sample.original_size[0], sample.original_size[1]),
        window=(top, left, size[0] - bottom, size[1] - right),
        flip=sample.meta.get("flip_direction", "horizontal") if sample.meta.get("flip") else None,
        align_corners=model.final_head.align_corners,
        device=logits.device,
    )
