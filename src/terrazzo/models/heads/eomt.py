"""EoMT's training: the losses of the queries that its encoder contains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrazzo.models.heads.mask_classification import QueryHead
from terrazzo.models.losses.set_criterion import PointSetCriterion, Prediction
from terrazzo.registry import MODELS


@MODELS.register
class EoMTHead(QueryHead):
    """The losses of EoMT (Kerssies et al., CVPR 2025), whose encoder predicts classes and masks itself.

    Masks are matched and trained at random points (`train_cfg`: num_points, oversample_ratio, importance_sample_ratio).
    """

    criterion_type = PointSetCriterion

    def forward(self, inputs: Sequence[Any]) -> Prediction:
        return inputs[-1]

    def layers(self, inputs: Sequence[Any]) -> list[Prediction]:
        return [*inputs]
