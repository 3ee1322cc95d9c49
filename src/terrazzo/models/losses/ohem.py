"""Online hard example mining over pixels (Shrivastava et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.models.losses.base import FROM_SOFTMAX, SegmentationLoss, class_weights
from terrazzo.registry import MODELS


@MODELS.register
class OHEMPixelSampler:
    """Keep the hardest pixels of a batch.

    With `thresh`: those whose label has a lower probability than it, and at least `min_kept` an image. Without: the
    `min_kept` an image with the highest loss.
    """

    def __init__(self, *, thresh: float | None = None, min_kept: int = 100000) -> None:
        self.thresh, self.min_kept = thresh, min_kept

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
            chosen = torch.zeros(count, dtype=torch.bool, device=logits.device)
            chosen[loss_map()[valid].topk(min(kept, count)).indices] = True
        else:
            chosen = hardest(own_probability(logits, labels, valid), kept, self.thresh)
        weight[valid] = chosen.to(weight.dtype)
        return weight


def own_probability(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Return the probability of its label (P,) for each pixel of a mask."""
    if logits.shape[1] == 1:
        foreground = logits[:, 0].sigmoid()
        return torch.where(labels == 1, foreground, 1 - foreground)[valid]
    return logits.softmax(1).gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)[valid]


def hardest(probability: Tensor, min_kept: int, threshold: float) -> Tensor:
    """Return the mask of pixels (P,) whose label's probability is below `threshold`, of at least `min_kept`."""
    if len(probability) == 0:
        return probability.bool()
    limit = probability.kthvalue(min(min_kept, len(probability) - 1) + 1).values.clamp(min=threshold)
    return probability < limit


@MODELS.register
class OhemCrossEntropy(SegmentationLoss):
    """Mean cross-entropy of the pixels whose label has a lower probability than `thres`, at least `min_kept` a batch.

    Online hard example mining (Shrivastava et al., CVPR 2016) as real-time networks train with it.
    """

    default_name = "loss_ohem"

    def __init__(
        self,
        *,
        ignore_label: int = 255,
        thres: float = 0.7,
        min_kept: int = 100000,
        class_weight: Sequence[float] | Literal["auto"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ignore_label, self.class_weight = ignore_label, class_weight
        self.thres, self.min_kept = thres, max(1, min_kept)

    def contradiction(self, channels: int) -> str | None:
        return FROM_SOFTMAX if channels == 1 else None

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        valid = (labels != ignore_index) & (labels != self.ignore_label)
        target = torch.where(valid, labels, 0)
        values = F.cross_entropy(logits, target, class_weights(self.class_weight, logits), reduction="none")[valid]
        if weight is not None:
            values = values * weight[valid]
        with torch.no_grad():
            hard = hardest(own_probability(logits, target, valid), self.min_kept, self.thres)
        return values[hard].sum() / hard.sum().clamp(min=1)
