"""Losses of continuous targets: the distribution of a teacher, and depths."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import SegmentationLoss, one_hot, reduce
from terrazzo.registry import MODELS


@MODELS.register
class KLDivLoss(SegmentationLoss):
    """KL divergence of the predicted distribution from a teacher's (Hinton et al., 2015), both at a `temperature`.

    Labels are the teacher's logits (N, K, H, W), or a class map (N, H, W), taken as certain. "mean" is
    over everything; "sum" is the sum of an image, averaged over the images.
    """

    default_name = "loss_kld"

    def __init__(self, *, temperature: float = 1.0, reduction: str = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature, self.reduction = temperature, reduction

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        if labels.ndim == logits.ndim:
            teacher = (labels / self.temperature).softmax(1)
        else:
            teacher = one_hot(labels, logits.shape[1], ignore_index)[0].to(logits.dtype)
        student = (logits / self.temperature).log_softmax(1)
        values = F.kl_div(student, teacher, reduction="none") * self.temperature**2  # N, K, H, W
        if weight is not None:
            values = values * weight.unsqueeze(1)
        return values.flatten(1).sum(1).mean() if self.reduction == "sum" else reduce(values, None, self.reduction)


@MODELS.register
class SiLogLoss(SegmentationLoss):
    """Scale-invariant error of the logarithms of depths (Eigen et al., NeurIPS 2014), its root for each image.

    Predicted depths (N, 1, H, W) and measured ones (N, H, W), in the same unit; pixels without a measurement (at most
    `eps`) are ignored.
    """

    default_name = "loss_silog"

    def __init__(self, *, reduction: str = "mean", eps: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction, self.eps = reduction, eps

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        predicted, measured = logits.flatten(1), labels.flatten(1)
        counted = (measured > self.eps).to(predicted.dtype)
        if weight is not None:
            counted = counted * weight.flatten(1)
        difference = measured.clamp(min=self.eps).log() - predicted.clamp(min=self.eps).log()
        count = counted.sum(1).clamp(min=self.eps)
        square_of_mean = ((difference * counted).sum(1) / count).square()
        mean_of_squares = (difference.square() * counted).sum(1) / count
        error = mean_of_squares - 0.5 * square_of_mean
        positive = error > 0  # the root has no gradient at 0
        values = torch.where(positive, error, 1.0).sqrt() * positive
        return reduce(values, None, self.reduction)
