"""The losses of mask classification, averaged over a number that the caller gives, and its one-to-one matching.

The type names of losses have the scope of published configs: `mmdet.DiceLoss` is not the same loss as `DiceLoss`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.losses.base import class_weights, reduce
from terrazzo.models.losses.dice import dice_overlap
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
        class_weight: Sequence[float] | Literal["auto"] | None = None,
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


def no_loss(logits: Tensor) -> Tensor:
    """Return zero, with a zero gradient for everything that `logits` depends on."""
    return logits.sum() * 0.0
