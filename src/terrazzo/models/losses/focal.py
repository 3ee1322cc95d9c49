"""Focal loss (Lin et al., ICCV 2017): each class against the rest by sigmoid; the mean is over pixels and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import WeightedLoss, by_class, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


def sigmoid_focal(logits: Tensor, targets: Tensor, gamma: float, alpha: Tensor) -> Tensor:
    """Binary cross-entropy of each element, scaled by (1 - p)^gamma, and by alpha (positives) or 1 - alpha."""
    probability = logits.sigmoid()
    missing = probability * (1 - targets) + (1 - probability) * targets  # what p lacks to be right
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * balance * missing**gamma


@MODELS.register
class FocalLoss(WeightedLoss):
    """Focal loss (Lin et al., ICCV 2017): each class against the rest by sigmoid; the mean is over pixels and classes.

    `alpha` is one number or one for each class. Labels are a class map (N, H, W), of 0 and 1 where the
    logits have one channel, or probabilities (N, K, H, W).
    """

    default_name = "loss_focal"

    def __init__(
        self, *, use_sigmoid: bool = True, gamma: float = 2.0, alpha: float | Sequence[float] = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not use_sigmoid:
            raise UserError("FocalLoss: only the sigmoid form exists; omit use_sigmoid")
        self.gamma, self.alpha = gamma, alpha

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        valid = torch.ones_like(labels[:, 0]) if labels.ndim == logits.ndim else labels != ignore_index
        targets = labels
        if labels.ndim < logits.ndim and logits.shape[1] == 1:
            targets = (labels * valid).unsqueeze(1)  # N, 1, H, W
        elif labels.ndim < logits.ndim:
            targets, _ = one_hot(labels, logits.shape[1], ignore_index)
        alpha = by_class(torch.as_tensor(self.alpha, dtype=logits.dtype, device=logits.device), logits)
        per_class = by_class(class_weights(self.class_weight, logits), logits)
        values = sigmoid_focal(logits, targets.to(logits.dtype), self.gamma, alpha)
        values = values if per_class is None else values * per_class
        counted = valid if weight is None else valid * weight
        return reduce(values, counted.unsqueeze(1), self.reduction)
