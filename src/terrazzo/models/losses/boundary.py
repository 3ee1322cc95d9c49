"""Binary cross-entropy of an edge map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import SegmentationLoss
from terrazzo.registry import MODELS


@MODELS.register
class BoundaryLoss(SegmentationLoss):
    """Binary cross-entropy in which edges and the rest have the same total weight (PIDNet, Xu et al., CVPR 2023).

    Logits (N, 1, H, W); labels (N, H, W) are 1 at edges and 0 elsewhere; any other value is ignored.
    """

    def __init__(self, *, loss_weight: float = 1.0, loss_name: str = "loss_boundary") -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        edge, rest = labels == 1, labels == 0
        share = edge.sum() / (edge | rest).sum().clamp(min=1)  # of edges among the labelled pixels
        balance = edge * (1 - share) + rest * share
        if weight is not None:
            balance = balance * weight
        values = F.binary_cross_entropy_with_logits(logits[:, 0], edge.to(logits.dtype), reduction="none")
        return self.loss_weight * torch.mean(values * balance)
