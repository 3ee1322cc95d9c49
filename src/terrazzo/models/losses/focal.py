"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import SegmentationLoss, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


def sigmoid_focal(logits: Tensor, targets: Tensor, gamma: float, alpha: Tensor) -> Tensor:
    """Binary cross-entropy of each element, scaled by (1 - p)^gamma, and by alpha (positives) or 1 - alpha."""
    probability = logits.sigmoid()
    missing = probability * (1 - targets) + (1 - probability) * targets  # what p lacks to be right
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * balance * missing**gamma


@MODELS.register
class FocalLoss(SegmentationLoss):
    """Focal loss (Lin et al., ICCV 2017): each class against the rest by sigmoid; the mean is over pixels and classes.

    `alpha` is one number or one for each class. Labels are a class map (N, H, W), of 0 and 1 where the
    logits have one channel, or probabilities (N, K, H, W).
    """

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 0.5,
        reduction: str = "mean",
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_focal",
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        if not use_sigmoid:
            raise UserError("FocalLoss: only the sigmoid form exists; omit use_sigmoid")
        self.gamma, self.alpha = gamma, alpha
        self.reduction = reduction
        self.class_weight = class_weight

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        valid = torch.ones_like(labels[:, 0]) if labels.ndim == logits.ndim else labels != ignore_index
        targets = labels
        if labels.ndim < logits.ndim and logits.shape[1] == 1:
            targets = (labels * valid).unsqueeze(1)  # N, 1, H, W
        elif labels.ndim < logits.ndim:
            targets, _ = one_hot(labels, logits.shape[1], ignore_index)
        by_class = (-1, *[1] * (logits.ndim - 2))
        alpha = torch.as_tensor(self.alpha, dtype=logits.dtype, device=logits.device)
        alpha = alpha.view(by_class) if alpha.ndim else alpha
        per_class = class_weights(self.class_weight, logits)
        values = sigmoid_focal(logits, targets.to(logits.dtype), self.gamma, alpha)
        if per_class is not None:
            values = values * per_class.view(by_class)
        counted = valid if weight is None else valid * weight
        return self.loss_weight * reduce(values, counted.unsqueeze(1), self.reduction)
