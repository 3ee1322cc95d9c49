"""Losses and what they are made of, by their names in MMSegmentation."""

import functools
from typing import Any

import torch
from torch import Tensor

from terrazzo.compat.files.files import load
from terrazzo.models.losses.base import SegmentationLoss, reduce
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss


def weight_reduce_loss(
    loss: Tensor, weight: Tensor | None = None, reduction: str = "mean", avg_factor: float | None = None
) -> Tensor:
    assert weight is None or weight.dim() == loss.dim()
    if avg_factor is not None and reduction == "sum":
        raise ValueError('avg_factor can not be used with reduction="sum"')
    return reduce(loss, weight, reduction, avg_factor)


def weighted_loss(loss_func: Any) -> Any:
    @functools.wraps(loss_func)
    def wrapper(
        pred: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean", avg_factor: Any = None, **kwargs: Any
    ) -> Tensor:
        return weight_reduce_loss(loss_func(pred, target, **kwargs), weight, reduction, avg_factor)

    return wrapper


def _function_of(**options: Any) -> Any:
    """A kind of cross-entropy as a function of logits and labels."""

    def function(
        pred: Tensor, label: Tensor, weight: Any = None, class_weight: Any = None, reduction: str = "mean",
        avg_factor: Any = None, ignore_index: int = -100, avg_non_ignore: bool = False, **_: Any,
    ) -> Tensor:  # fmt: skip
        loss = CrossEntropyLoss(class_weight=class_weight, avg_non_ignore=avg_non_ignore, **options)
        if avg_factor is None:
            return loss(pred, label, weight=weight, ignore_index=ignore_index, reduction=reduction)
        values = loss(pred, label, ignore_index=ignore_index, reduction="none")
        return weight_reduce_loss(values, weight, reduction, avg_factor)

    return function


def accuracy(
    pred: Tensor, target: Tensor, topk: Any = 1, thresh: float | None = None, ignore_index: int | None = None
) -> Any:
    ranks = (topk,) if isinstance(topk, int) else topk
    if pred.size(0) == 0:
        scores = [pred.new_tensor(0.0) for _ in ranks]
        return scores[0] if isinstance(topk, int) else scores
    assert pred.ndim == target.ndim + 1 and pred.size(0) == target.size(0)
    assert max(ranks) <= pred.size(1), f"maxk {max(ranks)} exceeds pred dimension {pred.size(1)}"
    values, labels = pred.topk(max(ranks), dim=1)
    right = (labels == target.unsqueeze(1)) & (values > (-torch.inf if thresh is None else thresh))
    valid = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    share = 100.0 / (valid.sum() + torch.finfo(torch.float32).eps)
    scores = [((right[:, :k] & valid.unsqueeze(1)).sum().float() * share).view(1) for k in ranks]
    return scores[0] if isinstance(topk, int) else scores


def _loss_map(losses: Any, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The sum of losses, terrazzo's or users', for each pixel (N, H, W)."""
    of_pixels = {"ignore_index": ignore_index, "reduction_override": "none"}
    maps = [loss.pixel_losses(logits, labels, ignore_index) if isinstance(loss, SegmentationLoss)
            else loss(logits, labels, **of_pixels) for loss in losses]  # fmt: skip
    return torch.stack(maps).sum(0)


TABLE: dict[str, Any] = {
    "cross_entropy": _function_of(),
    "binary_cross_entropy": (
        lambda pred, label, weight=None, reduction="mean", avg_factor=None, class_weight=None, *given, **options: (
            _function_of(use_sigmoid=True)(pred, label, weight, class_weight, reduction, avg_factor, *given, **options)
        )
    ),
    "get_class_weight": lambda class_weight: load(class_weight) if isinstance(class_weight, str) else class_weight,
    "reduce_loss": lambda loss, reduction: reduce(loss, None, reduction),
    "BasePixelSampler": type("BasePixelSampler", (), {"__init__": lambda self, **kwargs: self.__dict__.update(kwargs)}),
}
