"""Losses of regions: Dice (Milletari et al., 3DV 2016) in two published definitions, Tversky, Lovász and Hausdorff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import SegmentationLoss, WeightedLoss, class_weights, one_hot, reduce
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

    default_name = "loss_tversky"

    def __init__(
        self,
        *,
        smooth: float = 1,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if abs(alpha + beta - 1) > 1e-6:
            raise UserError(f"TverskyLoss: alpha={alpha} and beta={beta} must add up to 1")
        self.smooth, self.alpha, self.beta = smooth, alpha, beta
        self.class_weight = class_weight
        self.ignored_class = ignore_index

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
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
        return (values * kept).mean()


def lovasz(errors: Tensor, truth: Tensor) -> Tensor:
    """The convex extension of the Jaccard loss: `errors` of all pixels, `truth` 1 on the object (both 1-d) -> scalar.

    Each error counts by how much the Jaccard index falls when its pixel joins those with larger errors.
    """
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard_loss = 1 - intersection / union
    return errors @ torch.diff(jaccard_loss, prepend=jaccard_loss.new_zeros(1))


@MODELS.register
class LovaszLoss(WeightedLoss):
    """Lovász-softmax ("multi_class") or Lovász hinge ("binary") loss (Berman et al., CVPR 2018).

    `classes` averages over the classes "present" in the labels, over "all", or over a list of them. It works on the
    pixels of the batch together, or on each image (`per_image`), reduced by `reduction`. Pixels of weight 0 are
    skipped. Raises UserError for an unknown `loss_type` and where "binary" meets more than one channel.
    """

    default_name = "loss_lovasz"

    def __init__(
        self,
        *,
        loss_type: str = "multi_class",
        classes: str | Sequence[int] = "present",
        per_image: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if loss_type not in ("binary", "multi_class"):
            raise UserError(f"LovaszLoss: loss_type '{loss_type}' is unknown; use 'multi_class' or 'binary'")
        if isinstance(classes, str) and classes not in ("all", "present"):
            raise UserError(f"LovaszLoss: classes '{classes}' is unknown; use 'present', 'all' or a list of classes")
        self.loss_type, self.classes, self.per_image = loss_type, classes, per_image

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        if self.loss_type == "binary" and logits.shape[1] != 1:
            raise UserError(f"LovaszLoss: loss_type='binary' needs a head with out_channels=1, not {logits.shape[1]}")
        compute = self.hinge if self.loss_type == "binary" else self.softmax
        valid = labels != ignore_index
        if weight is not None:
            valid = valid & (weight > 0)
        pixels = logits.movedim(1, -1)  # N, H, W, K
        if not self.per_image:
            return compute(pixels[valid], labels[valid])
        values = [compute(x[mask], y[mask]) for x, y, mask in zip(pixels, labels, valid, strict=True)]
        return reduce(torch.stack(values), None, self.reduction)

    def hinge(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (P, 1), labels (P,) of 0 and 1."""
        truth = labels.to(logits.dtype)
        return lovasz((1 - logits[:, 0] * (2 * truth - 1)).relu(), truth)

    def softmax(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (P, K), labels (P,): the mean over classes; 0 where no class counts."""
        probability = logits.softmax(1)
        named = {"present": labels.unique().tolist(), "all": range(logits.shape[1])}
        chosen: Sequence[int] = named[self.classes] if isinstance(self.classes, str) else self.classes
        per_class = class_weights(self.class_weight, logits)
        total = probability.sum() * 0
        for index in chosen:
            truth = (labels == index).to(logits.dtype)
            value = lovasz((truth - probability[:, index]).abs(), truth)
            total = total + (value if per_class is None else value * per_class[index])
        return total / max(len(chosen), 1)


def depth_inside(masks: Tensor) -> Tensor:
    """Return the distance of each pixel of a mask from its outside: booleans (..., H, W) -> floats, 0 outside.

    A mask that fills the image is 0 throughout.
    """
    from scipy.ndimage import distance_transform_edt  # slow to import, and used in training only

    arrays = masks.flatten(0, -3).cpu().numpy()
    depths = [np.zeros(mask.shape) if mask.all() else distance_transform_edt(mask) for mask in arrays]
    return torch.from_numpy(np.stack(depths)).to(masks.device, torch.float32).view(masks.shape)


@MODELS.register(aliases=("HuasdorffDisstanceLoss",))  # as spelled in published configs
class HausdorffDistanceLoss(WeightedLoss):
    """Squared errors, weighted by their depth in the predicted and in the true object (Karimi et al., TMI 2019).

    Class 0 is background and has no term; the sum over the others is divided by the number of all classes. A class of
    the number `ignore_index` is skipped.
    """

    default_name = "loss_huasdorff_disstance"

    def __init__(self, *, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignored_class = ignore_index

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        num_classes = logits.shape[1]
        labels = torch.where(labels == self.ignored_class, ignore_index, labels)
        probability = logits.softmax(1)
        truth, valid = one_hot(labels, num_classes, ignore_index)
        counted = (valid if weight is None else valid * weight).unsqueeze(1)
        with torch.no_grad():
            predicted, _ = one_hot(probability.argmax(1), num_classes, -1)
            depth = depth_inside(predicted[:, 1:].bool()).square() + depth_inside(truth[:, 1:].bool()).square()
        errors = (probability[:, 1:] - truth[:, 1:]).square() * depth * counted  # N, K - 1, H, W
        values = errors.flatten(2).mean(2)  # N, K - 1
        per_class = class_weights(self.class_weight, logits)
        if per_class is not None:
            values = values * per_class[1:]
        kept = torch.arange(1, num_classes, device=logits.device) != self.ignored_class
        return reduce((values * kept).sum(1) / num_classes, None, self.reduction)
