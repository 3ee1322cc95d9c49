"""KL divergence of the predicted distribution from a teacher's (Hinton et al., 2015), both at a `temperature`."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import FROM_SOFTMAX, SegmentationLoss, one_hot, reduce
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

    def contradiction(self, channels: int) -> str | None:
        return FROM_SOFTMAX if channels == 1 else None

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
