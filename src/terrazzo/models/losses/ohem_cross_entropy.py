"""Cross-entropy of the hardest pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import SegmentationLoss, class_weights
from terrazzo.models.losses.ohem import hardest
from terrazzo.registry import MODELS


@MODELS.register
class OhemCrossEntropy(SegmentationLoss):
    """Mean cross-entropy of the pixels whose label has a lower probability than `thres`, at least `min_kept` a batch.

    Online hard example mining (Shrivastava et al., CVPR 2016) as real-time networks train with it.
    """

    def __init__(
        self,
        *,
        ignore_label: int = 255,
        thres: float = 0.7,
        min_kept: int = 100000,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ohem",
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        self.ignore_label = ignore_label
        self.thres = thres
        self.min_kept = max(1, min_kept)
        self.class_weight = class_weight

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        valid = (labels != ignore_index) & (labels != self.ignore_label)
        target = torch.where(valid, labels, 0)
        values = F.cross_entropy(logits, target, class_weights(self.class_weight, logits), reduction="none")[valid]
        if weight is not None:
            values = values * weight[valid]
        with torch.no_grad():
            probability = logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)[valid]
            hard = hardest(probability, self.min_kept, self.thres)
        return self.loss_weight * values[hard].sum() / hard.sum().clamp(min=1)
