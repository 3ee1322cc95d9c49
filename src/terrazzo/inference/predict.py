"""From a loaded batch to the scores of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.inference.argmax import LogitsGeometry
from terrazzo.inference.modes import infer
from terrazzo.inference.runtime import Placement
from terrazzo.inference.scores import Scores, View
from terrazzo.sample import Batch


@torch.inference_mode()
def predict_batch(models: Sequence[Any], batch: Batch) -> list[Scores]:
    """The scores of each image: the mean of the models' probabilities."""
    views = [batch_views(model, batch) for model in models]
    return [Scores(one, models[0].final_head.threshold) for one in zip(*views, strict=True)]


def batch_views(model: Any, batch: Batch) -> list[View]:
    """Each image's logits; images of different sizes are run one by one."""
    if len(set(batch.sizes)) == 1:
        runs = [batch.image]
    else:
        runs = [
            image[None, :, :height, :width] for image, (height, width) in zip(batch.image, batch.sizes, strict=True)
        ]
    samples, views = iter(batch.samples), []
    for images in runs:
        logits, input_size = raw_logits(model, images)
        placements = [Placement.of(next(samples), images.shape[-2:]) for _ in logits]
        views += [
            (own, logits_geometry(own, input_size, placement, model))
            for own, placement in zip(logits, placements, strict=True)
        ]
    return views


def raw_logits(model: Any, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Logits (N, K, h, w) of raw RGB images (N, C, H, W), and the size of the padded images."""
    padded = model.preprocess.pad_for_test(model.preprocess(images))
    logits = infer(model, padded)
    if logits.device.type not in ("cpu", "cuda"):  # which lack operators of the following steps
        logits = logits.cpu()
    return logits, (padded.shape[2], padded.shape[3])


def logits_geometry(logits: Tensor, input_size: tuple[int, int], placement: Placement, model: Any) -> LogitsGeometry:
    """The way from logits (K, h, w) to the stored image's."""
    return LogitsGeometry(
        head_size=(logits.shape[1], logits.shape[2]),
        input_size=input_size,
        own_size=placement.size,
        window=placement.window,
        flip=placement.flip,
        align_corners=model.final_head.align_corners,
        device=logits.device,
    )
