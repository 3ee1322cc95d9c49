"""Test-time augmentation: the mean over the views of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from terrazzo.inference.predict import Scores, batch_views
from terrazzo.sample import Batch


@torch.inference_mode()
def predict_views(models: Sequence[Any], batch: Batch) -> Scores:
    """The scores of one image from its views in `batch`: the mean of the models' probabilities."""
    views = tuple(view for model in models for view in batch_views(model, batch))
    return Scores(views, models[0].final_head.threshold).check(batch.samples[0].image_path)


def first_view(batch: Batch) -> Batch:
    """The batch reduced to its first view, whose targets are the image's."""
    height, width = batch.sizes[0]
    return replace(batch, image=batch.image[:1, :, :height, :width], samples=batch.samples[:1], sizes=batch.sizes[:1])
