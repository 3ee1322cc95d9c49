"""The losses of mask classification, averaged over a number that the caller gives, and its one-to-one matching.

The type names of losses have the scope of published configs: `mmdet.DiceLoss` is not the same loss as `DiceLoss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.losses.base import class_weights, reduce
from terrazzo.models.losses.regions import dice_overlap
from terrazzo.registry import MODELS


class SetLoss(nn.Module):
    """A loss of (logits, targets) -> scalar; the mean divides by `average` where it is given."""

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction, self.loss_weight = reduction, loss_weight

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each element."""
        raise NotImplementedError

    def forward(
        self, logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, average: Tensor | float | None = None
    ) -> Tensor:
        return self.loss_weight * reduce(self.values(logits, targets), weight, self.reduction, average)


@MODELS.register(name="mmdet.CrossEntropyLoss")
class SetCrossEntropyLoss(SetLoss):
    """Cross-entropy of class scores (M, K) and labels (M,), or with `use_sigmoid` of logits and binary targets."""

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if use_mask:
            raise UserError("mmdet.CrossEntropyLoss: use_mask belongs to instance segmentation; set use_sigmoid=True")
        self.use_sigmoid, self.class_weight, self.ignore_index = use_sigmoid, class_weight, ignore_index

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = class_weights(self.class_weight, logits)
        if self.use_sigmoid:
            targets = targets.to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
        return F.cross_entropy(logits, targets, weights, reduction="none", ignore_index=self.ignore_index)


@MODELS.register(name="mmdet.DiceLoss")
class SetDiceLoss(SetLoss):
    """1 - Dice overlap of each mask (M, ...) with its binary target; `naive_dice` omits the squares."""

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        activate: bool = True,
        naive_dice: bool = False,
        eps: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if activate and not use_sigmoid:
            raise UserError("mmdet.DiceLoss: with activate=True it needs use_sigmoid=True")
        self.activate, self.naive_dice, self.eps = activate, naive_dice, eps

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        predicted = (logits.sigmoid() if self.activate else logits).flatten(1)
        targets = targets.flatten(1).to(predicted.dtype)
        return 1 - dice_overlap(predicted, targets, self.eps, naive=self.naive_dice)


@MODELS.register(name="mmdet.FocalLoss")
class SetFocalLoss(SetLoss):
    """Focal loss (Lin et al., ICCV 2017) of logits and binary targets of the same shape."""

    def __init__(self, *, use_sigmoid: bool = True, gamma: float = 2.0, alpha: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not use_sigmoid:
            raise UserError("mmdet.FocalLoss: only the form with use_sigmoid=True exists")
        self.gamma, self.alpha = gamma, alpha

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        probability = logits.sigmoid()
        inside = self.alpha * (1 - probability) ** self.gamma * F.softplus(-logits)
        outside = (1 - self.alpha) * probability**self.gamma * F.softplus(logits)
        return targets * inside + (1 - targets) * outside


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a number over all processes of a distributed run."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def segments(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the classes (T,) of a label map (H, W), ascending, and their masks (T, H, W) as floats."""
    classes = labels.unique()
    classes = classes[classes != ignore_index]
    return classes, (labels == classes[:, None, None]).float()


def no_loss(logits: Tensor) -> Tensor:
    """Return zero, with a zero gradient for everything that `logits` depends on."""
    return logits.sum() * 0.0


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
    """How unlikely a query finds the segment's class."""

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
