"""Test-time augmentation: the mean over views of one image, as pure functions of (model, views)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.inference.predict import input_logits, restore
from terrazzo.sample import Batch, Sample


@torch.inference_mode()
def predict_views(model: Any, batch: Batch, test_cfg: dict[str, Any] | None = None) -> tuple[list[Tensor], Tensor]:
    """The class map (H, W) of the one image whose views `batch` holds, and its probabilities (1, K, H, W)."""
    views = [
        (image[None, :, :height, :width], sample)
        for image, sample, (height, width) in zip(batch.image, batch.samples, batch.sizes, strict=True)
    ]
    probabilities = mean_probabilities(model, views, test_cfg)
    threshold = model.final_head.threshold
    if probabilities.shape[1] == 1:
        return [(probabilities[0, 0] > (0.3 if threshold is None else threshold)).long()], probabilities
    return [probabilities[0].argmax(0)], probabilities


def mean_probabilities(
    model: Any, views: Sequence[tuple[Tensor, Sample]], test_cfg: dict[str, Any] | None = None
) -> Tensor:
    """Mean of the views' probabilities at the stored image's size: softmax (1, K, H, W), or sigmoid (1, 1, H, W).

    A view is a raw RGB image (1, C, h, w) and its sample, whose flip and padding are undone.
    """
    total: Tensor | float = 0.0
    for image, sample in views:
        logits = restore(input_logits(model, image, test_cfg), sample, model.final_head.align_corners)
        total = total + (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1))
    assert isinstance(total, Tensor), "an image has at least one view"
    return total / len(views)


def first_view(batch: Batch) -> Batch:
    """The batch with its first view alone, whose targets are the image's."""
    height, width = batch.sizes[0]
    return replace(batch, image=batch.image[:1, :, :height, :width], samples=batch.samples[:1], sizes=batch.sizes[:1])


def augmented_steps(pipeline: Sequence[Any], kind: str) -> list[Any]:
    """A config's `tta_pipeline`. Raises UserError where it has none, or a `tta_model` of another kind than the mean."""
    if not pipeline:
        raise UserError(
            "--tta: the config has no `tta_pipeline`; give it one: LoadImageFromFile, then TestTimeAug with a list of "
            "choices for each further step"
        )
    if kind.rpartition(".")[2] != "SegTTAModel":
        raise UserError(f"tta_model: '{kind}' is unknown; there is SegTTAModel, the mean of the views' probabilities")
    return list(pipeline)
