"""Binary cross-entropy in which edges and the rest have the same total weight (PIDNet, Xu et al., CVPR 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import SegmentationLoss, reduce
from terrazzo.registry import MODELS


@MODELS.register
class BoundaryLoss(SegmentationLoss):
    """Binary cross-entropy in which edges and the rest have the same total weight (PIDNet, Xu et al., CVPR 2023).

    Logits (N, 1, H, W); labels (N, H, W) are 1 at edges and 0 elsewhere; any other value is ignored.
    """

    default_name = "loss_boundary"

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        edge, rest = labels == 1, labels == 0
        share = edge.sum() / (edge | rest).sum().clamp(min=1)  # of edges among the labelled pixels
        balance = edge * (1 - share) + rest * share
        values = F.binary_cross_entropy_with_logits(logits[:, 0], edge.to(logits.dtype), reduction="none")
        return reduce(values * balance, weight, "mean")
