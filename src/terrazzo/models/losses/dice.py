"""1 - Dice overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from terrazzo.models.losses.base import WeightedLoss, class_sums, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


def dice_overlap(predicted: Tensor, truth: Tensor, eps: float, *, naive: bool) -> Tensor:
    """Return the Dice overlap (M,) of masks (M, P) with their truth; `naive` omits the squares of the sizes."""
    overlap = 2 * (predicted * truth).sum(1)
    if naive:
        return (overlap + eps) / (predicted.sum(1) + truth.sum(1) + eps)
    return overlap / (predicted.square().sum(1) + truth.square().sum(1) + 2 * eps)


@MODELS.register
class DiceLoss(WeightedLoss):
    """1 - Dice overlap.

    `formula="joint"`: one overlap for each image over all classes together. `formula="per_class"`: softmax, one overlap
    for each class, averaged with `class_weight`; `smooth` and `exponent` belong to this one.
    """

    default_name = "loss_dice"

    def __init__(
        self,
        *,
        formula: str = "joint",
        use_sigmoid: bool = True,
        activate: bool = True,
        naive_dice: bool = False,
        ignore_index: int | None = 255,
        eps: float = 1e-3,
        smooth: float = 1.0,
        exponent: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.compute = self.per_class if formula == "per_class" else self.joint
        self.use_sigmoid, self.activate, self.naive_dice = use_sigmoid, activate, naive_dice
        self.ignored_class = ignore_index
        self.eps, self.smooth, self.exponent = eps, smooth, exponent

    def contradiction(self, channels: int) -> str | None:
        if channels > 1 or self.compute == self.joint:
            return None
        return "compares several classes here, and out_channels is 1: set formula='joint'"

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        return self.compute(logits, labels, weight, ignore_index)

    def joint(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        """An ignored pixel has no label: only its prediction counts."""
        predicted = logits
        if self.activate:
            predicted = logits.sigmoid() if self.use_sigmoid or logits.shape[1] == 1 else logits.softmax(1)
        if logits.shape[1] == 1:
            hot = ((labels == 1) & (labels != ignore_index)).unsqueeze(1)
        else:
            hot, _ = one_hot(labels, logits.shape[1], ignore_index)
        if self.ignored_class is not None and self.ignored_class < logits.shape[1]:
            kept = torch.arange(logits.shape[1], device=logits.device) != self.ignored_class
            predicted, hot = predicted[:, kept], hot[:, kept]
        if weight is not None:
            predicted, hot = predicted * weight.unsqueeze(1), hot * weight.unsqueeze(1)
        predicted, hot = predicted.flatten(1), hot.flatten(1).to(predicted.dtype)
        return reduce(1 - dice_overlap(predicted, hot, self.eps, naive=self.naive_dice), None, self.reduction)

    def per_class(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        """An ignored pixel counts as the last class, and only in the denominator."""
        predicted, num_classes = logits.softmax(1), logits.shape[1]
        counted = (labels != ignore_index) if weight is None else (labels != ignore_index) * weight
        labels = labels.clamp(0, num_classes - 1)
        own = predicted.gather(1, labels.unsqueeze(1)).squeeze(1)  # N, H, W: the probability of a pixel's label
        overlap = class_sums(own * counted, labels, num_classes)
        size = predicted.pow(self.exponent).flatten(2).sum(2) + class_sums(torch.ones_like(own), labels, num_classes)
        dice = 1 - (2 * overlap + self.smooth) / (size + self.smooth)  # N, K
        weights = class_weights(self.class_weight, logits)
        if self.ignored_class is not None and self.ignored_class < num_classes:
            dice = dice[:, torch.arange(num_classes, device=logits.device) != self.ignored_class]
        return reduce(dice if weights is None else dice * weights, None, self.reduction)
