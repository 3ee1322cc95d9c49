"""Squared errors, weighted by their depth in the predicted and in the true object (Karimi et al., TMI 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrazzo.models.losses.base import FROM_SOFTMAX, WeightedLoss, class_weights, one_hot, reduce
from terrazzo.registry import MODELS


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

    def contradiction(self, channels: int) -> str | None:
        return FROM_SOFTMAX if channels == 1 else None

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        num_classes = logits.shape[1]
        labels = torch.where(labels == self.ignored_class, ignore_index, labels)
        probability = logits.softmax(1)
        truth, valid = one_hot(labels, num_classes, ignore_index)
        counted = (valid if weight is None else valid * weight).unsqueeze(1)
        with torch.no_grad():
            predicted, _ = one_hot(probability.argmax(1), num_classes, -1)
            depth = depth_inside(predicted[:, 1:]).square() + depth_inside(truth[:, 1:]).square()
        errors = (probability[:, 1:] - truth[:, 1:].to(probability.dtype)).square() * depth * counted  # N, K - 1, H, W
        values = errors.flatten(2).mean(2)  # N, K - 1
        per_class = class_weights(self.class_weight, logits)
        if per_class is not None:
            values = values * per_class[1:]
        kept = torch.arange(1, num_classes, device=logits.device) != self.ignored_class
        return reduce((values * kept).sum(1) / num_classes, None, self.reduction)
