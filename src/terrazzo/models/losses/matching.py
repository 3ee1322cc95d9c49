"""The cost (Q, T) of giving each of T segments to each of Q queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.registry import MODELS


def segments(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the classes (T,) of a label map (H, W), ascending, and their masks (T, H, W) as floats."""
    classes = labels.unique()
    classes = classes[classes != ignore_index]
    return classes, (labels == classes[:, None, None]).float()


Match = tuple[Tensor, Tensor]  # indices of the matched queries, ascending, and of the segment of each


class MatchCost(nn.Module):
    """The cost (Q, T) of giving each of T segments to each of Q queries.

    Scores (Q, K + 1) and masks (Q, P) are logits; labels (T,) and targets (T, P) describe the segments.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError


@MODELS.register
class ClassificationCost(MatchCost):
    """The cost of assigning a query to a segment by the probability of the segment's class."""

    def forward(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        return -self.weight * scores.softmax(-1)[:, labels]


@MODELS.register
class CrossEntropyLossCost(MatchCost):
    """Binary cross-entropy of a query's mask, averaged over its pixels or points."""

    def __init__(self, *, weight: float = 1.0, use_sigmoid: bool = True) -> None:
        super().__init__(weight=weight)
        if not use_sigmoid:
            raise UserError("CrossEntropyLossCost compares binary masks: it needs use_sigmoid=True")

    def forward(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        inside, outside = F.softplus(-masks), F.softplus(masks)  # cost of a pixel in the segment, and outside it
        return self.weight * ((inside @ targets.T + outside @ (1 - targets).T) / masks.shape[1])


@MODELS.register
class FocalLossCost(MatchCost):
    """Focal loss (Lin et al., ICCV 2017) of a query's mask with `binary_input`, of its class scores otherwise."""

    def __init__(
        self,
        *,
        weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        eps: float = 1e-12,
        binary_input: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        self.alpha, self.gamma, self.eps, self.binary_input = alpha, gamma, eps, binary_input

    def forward(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        probability = (masks if self.binary_input else scores).sigmoid()
        present = -(probability + self.eps).log() * self.alpha * (1 - probability) ** self.gamma
        absent = -(1 - probability + self.eps).log() * (1 - self.alpha) * probability**self.gamma
        if not self.binary_input:
            return self.weight * (present - absent)[:, labels]
        return self.weight * ((present @ targets.T + absent @ (1 - targets).T) / masks.shape[1])


@MODELS.register
class DiceCost(MatchCost):
    """1 - Dice overlap of a query's mask with the segment; `pred_act` takes the mask's sigmoid."""

    def __init__(
        self, *, weight: float = 1.0, pred_act: bool = False, eps: float = 1e-3, naive_dice: bool = True
    ) -> None:
        super().__init__(weight=weight)
        self.pred_act, self.eps, self.naive_dice = pred_act, eps, naive_dice

    def forward(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        if self.pred_act:
            masks = masks.sigmoid()
        overlap = 2 * masks @ targets.T
        power = 1 if self.naive_dice else 2
        sizes = masks.pow(power).sum(-1)[:, None] + targets.pow(power).sum(-1)[None]
        return self.weight * (1 - (overlap + self.eps) / (sizes + self.eps))


@MODELS.register
class HungarianAssigner(nn.Module):
    """The one-to-one matching of queries and segments with the least total cost."""

    def __init__(self, *, match_costs: Sequence[MatchCost] | MatchCost) -> None:
        super().__init__()
        self.match_costs = [match_costs] if isinstance(match_costs, MatchCost) else list(match_costs)

    @torch.no_grad()
    def assign(self, scores: Tensor, masks: Tensor, labels: Tensor, targets: Tensor) -> Match:
        """Scores (Q, K + 1), masks (Q, P), labels (T,), targets (T, P); min(Q, T) queries get a segment."""
        from scipy.optimize import linear_sum_assignment  # slow to import, and used in training only

        scores, masks, targets = scores.float(), masks.float(), targets.float()
        costs = [cost(scores, masks, labels, targets) for cost in self.match_costs]
        queries, segments = linear_sum_assignment(torch.stack(costs).sum(0).cpu().numpy())
        return torch.as_tensor(queries, device=labels.device), torch.as_tensor(segments, device=labels.device)


@MODELS.register
class MaskPseudoSampler:
    """The sampler of mask classification: every match counts."""

    def sample(self, match: Match) -> Match:
        return match
