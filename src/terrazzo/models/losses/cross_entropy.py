"""Cross-entropy over pixels: softmax over classes, sigmoid for each class, binary masks, an edge map; focal loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import WeightedLoss, by_class, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


@MODELS.register
class CrossEntropyLoss(WeightedLoss):
    """Cross-entropy with class weights.

    The mean is over all pixels, or with `avg_non_ignore` over those not ignored. With class weights it divides by
    the sum of the pixels' weights, or by their number with `weight_average="pixels"`.
    """

    default_name = "loss_ce"

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        avg_non_ignore: bool = False,
        weight_average: str = "weights",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if use_sigmoid and use_mask:
            raise UserError("CrossEntropyLoss: use_sigmoid and use_mask are mutually exclusive; set one of them")
        self.compute = self.masks if use_mask else self.sigmoid if use_sigmoid else self.softmax
        self.avg_non_ignore, self.weight_average = avg_non_ignore, weight_average

    def contradiction(self, channels: int) -> str | None:
        if channels > 1 or self.compute == self.sigmoid:
            return None
        return "is over several classes here, and out_channels is 1: set use_sigmoid=True (without use_mask)"

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        reduction: str | None = None,
    ) -> Tensor:
        return self.loss_weight * self.compute(logits, labels, weight, ignore_index, reduction or self.reduction)

    def pixel_losses(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        losses = self(logits, labels, ignore_index=ignore_index, reduction="none")
        return losses.sum(1) if losses.ndim > labels.ndim else losses

    def softmax(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        """Logits (N, K, ...), labels (N, ...)."""
        per_class = class_weights(self.class_weight, logits)
        values = F.cross_entropy(logits, labels, per_class, reduction="none", ignore_index=ignore_index)
        return reduce(values, weight, reduction, self.divisor(labels, per_class, ignore_index))

    def divisor(self, labels: Tensor, per_class: Tensor | None, ignore_index: int) -> Tensor | int:
        """Return the divisor of the sum of the pixels' losses for their mean, with softmax."""
        valid = labels != ignore_index
        if per_class is not None and self.weight_average == "weights":
            return (per_class[torch.where(valid, labels, 0)] * valid).sum()
        return valid.sum() if self.avg_non_ignore else labels.numel()

    def sigmoid(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        """One channel against labels 0 and 1, or K against the one-hot label; class weights favour positives."""
        valid = (labels >= 0) & (labels != ignore_index)
        index = torch.where(valid, labels, 0)
        per_class = class_weights(self.class_weight, logits)
        channels = logits.shape[1]
        if channels == 1:
            target = index.to(logits.dtype)
            values = F.binary_cross_entropy_with_logits(logits[:, 0], target, pos_weight=per_class, reduction="none")
        else:  # every class as a negative, then the label's own as a positive: no one-hot map is made
            own = logits.gather(1, index.unsqueeze(1)).squeeze(1)  # N, H, W
            values = F.softplus(logits).sum(1) - own
            if per_class is not None:
                values = values + (per_class.expand(channels)[index] - 1) * F.softplus(-own)
        weight = valid if weight is None else valid * weight
        counted = valid.sum() if self.avg_non_ignore else valid.numel()
        return reduce(values, weight, reduction, counted * channels)

    def masks(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
        """Each class's channel against a binary mask (N, K, H, W), or against the one-hot label."""
        if labels.ndim == logits.ndim:
            target, valid = labels, torch.ones_like(labels[:, 0], dtype=torch.bool)
        else:
            target, valid = one_hot(labels, logits.shape[1], ignore_index)
        per_class = by_class(class_weights(self.class_weight, logits), logits)
        values = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), per_class, reduction="none")
        counted = valid.unsqueeze(1).expand_as(values)
        weight = counted if weight is None else counted * weight.unsqueeze(1)
        return reduce(values, weight, reduction, counted.sum())
