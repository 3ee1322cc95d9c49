"""Online hard example mining over pixels (Shrivastava et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from terrazzo.registry import MODELS


@MODELS.register
class OHEMPixelSampler:
    """Keep the hardest pixels of a batch.

    With `thresh`: those whose label has a lower probability than it, and at least `min_kept` an image. Without: the
    `min_kept` an image with the highest loss.
    """

    def __init__(self, *, thresh: float | None = None, min_kept: int = 100000) -> None:
        self.thresh = thresh
        self.min_kept = min_kept

    @torch.no_grad()
    def sample(self, logits: Tensor, labels: Tensor, loss_map: Callable[[], Tensor], ignore_index: int) -> Tensor:
        """Return weights (N, H, W) of 0 and 1; `loss_map()` gives the losses of the pixels (N, H, W)."""
        valid = labels != ignore_index
        weight = torch.zeros(labels.shape, dtype=logits.dtype, device=logits.device)
        count = int(valid.sum())
        if count == 0:
            return weight
        kept = self.min_kept * len(labels)
        if self.thresh is None:
            chosen = torch.zeros(count, dtype=logits.dtype, device=logits.device)
            chosen[loss_map()[valid].topk(min(kept, count)).indices] = 1
            weight[valid] = chosen
            return weight
        probability = logits.softmax(1).gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)[valid]
        weight[valid] = hardest(probability, kept, self.thresh).to(weight.dtype)
        return weight


def hardest(probability: Tensor, min_kept: int, threshold: float) -> Tensor:
    """Return the mask of pixels (P,) whose label's probability is below `threshold`, of at least `min_kept`."""
    if len(probability) == 0:
        return probability.bool()
    limit = probability.kthvalue(min(min_kept, len(probability) - 1) + 1).values.clamp(min=threshold)
    return probability < limit
