"""Scale-invariant error of the logarithms of depths (Eigen et al., NeurIPS 2014), its root for each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from terrazzo.models.losses.base import SegmentationLoss, reduce
from terrazzo.registry import MODELS


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
