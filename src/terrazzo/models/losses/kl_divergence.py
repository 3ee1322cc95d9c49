"""Kullback-Leibler divergence, for distillation."""

from __future__ import annotations

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

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        loss_name: str = "loss_kld",
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        self.temperature = temperature
        self.reduction = reduction

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        if labels.ndim == logits.ndim:
            teacher = (labels / self.temperature).softmax(1)
        else:
            teacher = one_hot(labels, logits.shape[1], ignore_index)[0].to(logits.dtype)
        student = (logits / self.temperature).log_softmax(1)
        values = F.kl_div(student, teacher, reduction="none") * self.temperature**2  # N, K, H, W
        if weight is not None:
            values = values * weight.unsqueeze(1)
        if self.reduction == "sum":
            return self.loss_weight * values.flatten(1).sum(1).mean()
        return self.loss_weight * reduce(values, None, self.reduction)
