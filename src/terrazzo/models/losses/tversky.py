"""1 - Tversky index (Salehi et al., MLMI 2017) of each class in each image, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import FROM_SOFTMAX, SegmentationLoss, class_sums, class_weights
from terrazzo.registry import MODELS


@MODELS.register
class TverskyLoss(SegmentationLoss):
    """1 - Tversky index (Salehi et al., MLMI 2017) of each class in each image, averaged.

    The index is TP / (TP + alpha * FP + beta * FN), softly counted. A class of the number `ignore_index` is skipped.
    Raises UserError unless alpha + beta is 1.
    """

    default_name = "loss_tversky"

    def __init__(
        self,
        *,
        smooth: float = 1,
        class_weight: Sequence[float] | Literal["auto"] | None = None,
        ignore_index: int = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if abs(alpha + beta - 1) > 1e-6:
            raise UserError(f"TverskyLoss: alpha={alpha} and beta={beta} must add up to 1")
        self.smooth, self.alpha, self.beta = smooth, alpha, beta
        self.class_weight: Any = class_weight
        self.ignored_class = ignore_index

    def contradiction(self, channels: int) -> str | None:
        return FROM_SOFTMAX if channels == 1 else None

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        labels = torch.where(labels == self.ignored_class, ignore_index, labels)
        num_classes, valid = logits.shape[1], (labels >= 0) & (labels != ignore_index)
        counted = (valid if weight is None else valid * weight).to(logits.dtype)
        labels, probability = torch.where(valid, labels, 0), logits.softmax(1)
        own = probability.gather(1, labels.unsqueeze(1)).squeeze(1)  # N, H, W: the probability of a pixel's label
        hit = class_sums(own * counted, labels, num_classes)
        predicted = (probability * counted.unsqueeze(1)).flatten(2).sum(2)
        actual = class_sums(counted, labels, num_classes)
        size = hit + self.alpha * (predicted - hit) + self.beta * (actual - hit)
        values = (1 - (hit + self.smooth) / (size + self.smooth)).mean(0)  # K
        per_class = class_weights(self.class_weight, logits)
        if per_class is not None:
            values = values * per_class
        kept = torch.arange(len(values), device=values.device) != self.ignored_class
        return (values * kept).mean()
