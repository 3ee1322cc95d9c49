"""Losses of overlap: Dice (Milletari et al., 3DV 2016) in two published definitions, and Tversky."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import SegmentationLoss, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


def dice_overlap(predicted: Tensor, truth: Tensor, eps: float, *, naive: bool) -> Tensor:
    """Return the Dice overlap (M,) of masks (M, P) with their truth; `naive` omits the squares of the sizes."""
    overlap = 2 * (predicted * truth).sum(1)
    if naive:
        return (overlap + eps) / (predicted.sum(1) + truth.sum(1) + eps)
    return overlap / (predicted.square().sum(1) + truth.square().sum(1) + 2 * eps)


@MODELS.register
class DiceLoss(SegmentationLoss):
    """1 - Dice overlap.

    `formula="joint"`: one overlap for each image over all classes together. `formula="per_class"`: softmax, one overlap
    for each class, averaged with `class_weight`; `smooth` and `exponent` belong to this one.
    """

    def __init__(
        self,
        *,
        formula: str = "joint",
        use_sigmoid: bool = True,
        activate: bool = True,
        naive_dice: bool = False,
        reduction: str = "mean",
        ignore_index: int | None = 255,
        eps: float = 1e-3,
        smooth: float = 1.0,
        exponent: float = 2.0,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_dice",
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        self.compute = self.per_class if formula == "per_class" else self.joint
        self.use_sigmoid = use_sigmoid
        self.activate = activate
        self.naive_dice = naive_dice
        self.reduction = reduction
        self.ignored_class = ignore_index
        self.eps = eps
        self.smooth = smooth
        self.exponent = exponent
        self.class_weight = class_weight

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        return self.loss_weight * self.compute(logits, labels, weight, ignore_index)

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
        predicted = logits.softmax(1)
        num_classes = logits.shape[1]
        valid = (labels != ignore_index).unsqueeze(1)
        if weight is not None:
            valid = valid * weight.unsqueeze(1)
        hot, _ = one_hot(labels.clamp(0, num_classes - 1), num_classes, -1)
        overlap = (predicted * hot * valid).flatten(2).sum(2)  # N, K
        size = (predicted**self.exponent + hot**self.exponent).flatten(2).sum(2)
        dice = 1 - (2 * overlap + self.smooth) / (size + self.smooth)  # N, K
        weights = class_weights(self.class_weight, logits)
        if self.ignored_class is not None and self.ignored_class < num_classes:
            dice = dice[:, torch.arange(num_classes, device=logits.device) != self.ignored_class]
        return reduce(dice if weights is None else dice * weights, None, self.reduction)


@MODELS.register
class TverskyLoss(SegmentationLoss):
    """1 - Tversky index (Salehi et al., MLMI 2017) of each class in each image, averaged.

    The index is TP / (TP + alpha * FP + beta * FN), softly counted. A class of the number `ignore_index` is skipped.
    Raises UserError unless alpha + beta is 1.
    """

    def __init__(
        self,
        *,
        smooth: float = 1,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        loss_name: str = "loss_tversky",
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        if abs(alpha + beta - 1) > 1e-6:
            raise UserError(f"TverskyLoss: alpha={alpha} and beta={beta} must add up to 1")
        self.smooth, self.alpha, self.beta = smooth, alpha, beta
        self.class_weight = class_weight
        self.ignored_class = ignore_index

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        labels = torch.where(labels == self.ignored_class, ignore_index, labels)
        truth, valid = one_hot(labels, logits.shape[1], ignore_index)
        counted = (valid if weight is None else valid * weight).unsqueeze(1)
        probability = logits.softmax(1)
        hit = (probability * truth * counted).flatten(2).sum(2)  # N, K
        predicted = (probability * counted).flatten(2).sum(2)
        actual = (truth * counted).flatten(2).sum(2)
        size = hit + self.alpha * (predicted - hit) + self.beta * (actual - hit)
        values = (1 - (hit + self.smooth) / (size + self.smooth)).mean(0)  # K
        per_class = class_weights(self.class_weight, logits)
        if per_class is not None:
            values = values * per_class
        kept = torch.arange(len(values), device=values.device) != self.ignored_class
        return self.loss_weight * (values * kept).mean()
