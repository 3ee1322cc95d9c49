"""Test-time augmentation: the mean over views of one image, as pure functions of (models, views)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from terrazzo.errors import UserError
from terrazzo.inference.predict import batch_views
from terrazzo.inference.scores import Scores
from terrazzo.sample import Batch


@torch.inference_mode()
def predict_views(models: Sequence[Any], batch: Batch) -> Scores:
    """The scores of one image from its views in `batch`: the mean of the models' probabilities."""
    return Scores(tuple(view for model in models for view in batch_views(model, batch)), models[0].final_head.threshold)


def first_view(batch: Batch) -> Batch:
    """The batch reduced to its first view, whose targets are the image's."""
    height, width = batch.sizes[0]
    return replace(batch, image=batch.image[:1, :, :height, :width], samples=batch.samples[:1], sizes=batch.sizes[:1])


def augmented_steps(pipeline: Sequence[Any], kind: str) -> list[Any]:
    """A config's `tta_pipeline`. Raises UserError if there is none, or if `tta_model` is not the mean of the views."""
    if not pipeline:
        raise UserError(
            "--tta: the config has no `tta_pipeline`; give it one: LoadImageFromFile, then TestTimeAug with a list of "
            "choices for each further step"
        )
    if kind.rpartition(".")[2] != "SegTTAModel":
        raise UserError(
            f"tta_model: '{kind}' is unknown; there is only SegTTAModel, the mean of the views' probabilities"
        )
    return list(pipeline)
