"""From a loaded batch to class maps at the images' own sizes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.inference.modes import at_size, infer, to_labels
from terrazzo.sample import Batch, Sample


def input_logits(model: Any, images: Tensor, test_cfg: dict[str, Any] | None = None) -> Tensor:
    """Logits (N, K, H, W) of raw RGB images (N, C, H, W), at their size."""
    height, width = images.shape[-2:]
    padded = model.preprocess.pad_for_test(model.preprocess(images))
    return infer(model, padded, test_cfg)[..., :height, :width]


def restore(logits: Tensor, sample: Sample, align_corners: bool) -> Tensor:
    """Logits of one image (1, K, h, w) without the pipeline's padding and flip, at the stored image's size."""
    left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
    height, width = logits.shape[-2:]
    logits = logits[..., top : height - bottom, left : width - right]
    if sample.meta.get("flip"):
        axes = {"horizontal": [-1], "vertical": [-2], "diagonal": [-2, -1]}
        logits = logits.flip(axes[sample.meta.get("flip_direction", "horizontal")])
    return at_size(logits, sample.original_size, align_corners)


@torch.inference_mode()
def predict_batch(model: Any, batch: Batch, test_cfg: dict[str, Any] | None = None) -> tuple[list[Tensor], Tensor]:
    """Class maps (H, W), each at its stored image's size, and the logits of the batch at the network's input size."""
    head = model.final_head
    if len(set(batch.sizes)) == 1:
        logits = input_logits(model, batch.image, test_cfg)
    else:
        logits = one_by_one(model, batch, test_cfg)
    maps = []
    for index, (sample, (height, width)) in enumerate(zip(batch.samples, batch.sizes, strict=True)):
        own = restore(logits[index : index + 1, :, :height, :width], sample, head.align_corners)
        maps.append(to_labels(own, head.threshold)[0])
    return maps, logits


def one_by_one(model: Any, batch: Batch, test_cfg: dict[str, Any] | None) -> Tensor:
    """Logits of a batch of unlike sizes, each image run at its own."""
    parts = [
        input_logits(model, image[None, :, :height, :width], test_cfg)
        for image, (height, width) in zip(batch.image, batch.sizes, strict=True)
    ]
    height, width = batch.image.shape[-2:]
    return torch.cat([F.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2])) for part in parts])
