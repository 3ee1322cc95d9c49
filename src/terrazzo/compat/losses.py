"""Losses and what they are made of, by their names in MMSegmentation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.losses import ohem
from terrazzo.models.losses.base import SegmentationLoss
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss as Ours


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of a loss map, or the map ("none")."""
    return {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[reduction]()  # type: ignore[operator]


def weight_reduce_loss(
    loss: Tensor, weight: Tensor | None = None, reduction: str = "mean", avg_factor: float | None = None
) -> Tensor:
    """Weight a loss map and reduce it; the mean divides by `avg_factor` where given."""
    if weight is not None:
        assert weight.dim() == loss.dim()
        loss = loss * weight
    if avg_factor is None:
        return reduce_loss(loss, reduction)
    if reduction == "mean":
        return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)
    if reduction != "none":
        raise ValueError('avg_factor can not be used with reduction="sum"')
    return loss


def weighted_loss(loss_func: Any) -> Any:
    """Give a function of (pred, target) the arguments `weight`, `reduction` and `avg_factor`."""

    @functools.wraps(loss_func)
    def wrapper(
        pred: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean", avg_factor: Any = None, **kwargs: Any
    ) -> Tensor:
        return weight_reduce_loss(loss_func(pred, target, **kwargs), weight, reduction, avg_factor)

    return wrapper


def get_class_weight(class_weight: Any) -> Any:
    """Class weights as given, or as a file (.npy, .json, .yaml) holds them."""
    if not isinstance(class_weight, str):
        return class_weight
    if class_weight.endswith(".npy"):
        import numpy as np

        return np.load(class_weight)
    import yaml

    return yaml.safe_load(Path(class_weight).read_text(encoding="utf-8"))


def accuracy(
    pred: Tensor, target: Tensor, topk: Any = 1, thresh: float | None = None, ignore_index: int | None = None
) -> Any:
    """The percentage of labels (N, ...) among the `topk` classes with the highest scores (N, K, ...)."""
    ranks = (topk,) if isinstance(topk, int) else topk
    if pred.size(0) == 0:
        empty = [pred.new_tensor(0.0) for _ in ranks]
        return empty[0] if isinstance(topk, int) else empty
    assert pred.ndim == target.ndim + 1 and pred.size(0) == target.size(0)
    assert max(ranks) <= pred.size(1), f"maxk {max(ranks)} exceeds pred dimension {pred.size(1)}"
    values, labels = pred.topk(max(ranks), dim=1)
    right = labels == target.unsqueeze(1)
    if thresh is not None:
        right = right & (values > thresh)
    valid = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    eps = torch.finfo(torch.float32).eps
    scores = [(right[:, :k] & valid.unsqueeze(1)).sum().float() * (100.0 / (valid.sum() + eps)) for k in ranks]
    return scores[0].view(1) if isinstance(topk, int) else [score.view(1) for score in scores]


def cross_entropy(
    pred: Tensor, label: Tensor, weight: Any = None, class_weight: Any = None, reduction: str = "mean",
    avg_factor: Any = None, ignore_index: int = -100, avg_non_ignore: bool = False,
) -> Tensor:  # fmt: skip
    """Cross-entropy of logits (N, K, ...) and labels (N, ...)."""
    loss = F.cross_entropy(pred, label, class_weight, reduction="none", ignore_index=ignore_index)
    if avg_factor is None and reduction == "mean" and (class_weight is not None or avg_non_ignore):
        valid = label != ignore_index
        own = valid if class_weight is None else class_weight[torch.where(valid, label, 0)] * valid
        avg_factor = own.sum() if class_weight is not None or avg_non_ignore else None
    return weight_reduce_loss(loss, None if weight is None else weight.float(), reduction, avg_factor)


def binary_cross_entropy(
    pred: Tensor, label: Tensor, weight: Any = None, reduction: str = "mean", avg_factor: Any = None,
    class_weight: Any = None, ignore_index: int = -100, avg_non_ignore: bool = False, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of each class's logits; labels that are no maps of classes become one-hot."""
    if pred.size(1) == 1:
        valid = ((label >= 0) & (label != ignore_index)).float()
        pred, label = (pred.squeeze(1), label) if pred.ndim > label.ndim or label.ndim == 3 else (pred, label)
        label = torch.where(valid > 0, label, 0)
    elif pred.ndim != label.ndim:
        valid = ((label >= 0) & (label != ignore_index)).unsqueeze(1).expand_as(pred).float()
        hot = F.one_hot(torch.where((label >= 0) & (label != ignore_index), label, 0).long(), pred.size(1))
        label = hot.movedim(-1, 1) * valid
        weight = None if weight is None else weight.unsqueeze(1).expand_as(pred)
    else:
        valid = ((label >= 0) & (label != ignore_index)).float()
    if reduction == "mean" and avg_factor is None and avg_non_ignore:
        avg_factor = valid.sum().item()
    loss = F.binary_cross_entropy_with_logits(pred, label.float(), pos_weight=class_weight, reduction="none")
    return weight_reduce_loss(loss, valid if weight is None else valid * weight, reduction, avg_factor)


def mask_cross_entropy(
    pred: Tensor, target: Tensor, label: Tensor, reduction: str = "mean", avg_factor: Any = None,
    class_weight: Any = None, ignore_index: Any = None, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """The binary cross-entropy of each instance's mask of its own class."""
    own = pred[torch.arange(len(pred), device=pred.device), label].squeeze(1)
    return F.binary_cross_entropy_with_logits(own, target, weight=class_weight, reduction="mean")[None]


def loss_map(losses: Any, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The sum of losses, terrazzo's or users', for each pixel (N, H, W)."""

    def one(loss: Any) -> Tensor:
        if isinstance(loss, SegmentationLoss):
            return loss.pixel_losses(logits, labels, ignore_index)
        return loss(logits, labels, ignore_index=ignore_index, reduction_override="none")

    return torch.stack([*map(one, losses)]).sum(0)


class OHEMPixelSampler(ohem.OHEMPixelSampler):
    """Weights of one for the hardest pixels by the losses of a head, the `context`."""

    def __init__(self, context: Any = None, thresh: float | None = None, min_kept: int = 100000) -> None:
        super().__init__(thresh=thresh, min_kept=min_kept)
        self.context = context

    def sample(
        self, seg_logit: Tensor, seg_label: Tensor, loss_map: Any = None, ignore_index: int | None = None
    ) -> Tensor:
        if loss_map is not None and ignore_index is not None:
            return super().sample(seg_logit, seg_label, loss_map, ignore_index)
        assert seg_logit.shape[2:] == seg_label.shape[2:] and seg_label.shape[1] == 1
        labels, head = seg_label.squeeze(1).long(), self.context
        losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
        ignored = head.ignore_index
        return super().sample(seg_logit, labels, lambda: loss_map(losses, seg_logit, labels, ignored), ignored)


class BasePixelSampler:
    """The base of samplers of pixels; a subclass has `sample(seg_logit, seg_label)` -> weights."""

    def __init__(self, **kwargs: Any) -> None:
        vars(self).update(kwargs)

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        raise NotImplementedError


class LossFace(nn.Module):
    """The face of a loss there: positional arguments, `reduction_override`, `loss_name` as an attribute."""

    _loss_name: str

    @property
    def loss_name(self) -> Any:
        return vars(self).get("_loss_name")

    @loss_name.setter
    def loss_name(self, value: str) -> None:
        vars(self)["_loss_name"] = value

    def forward(
        self, pred: Any, target: Any, weight: Any = None, avg_factor: Any = None, reduction_override: Any = None,
        ignore_index: int = 255, **kwargs: Any,
    ) -> Any:  # fmt: skip
        assert reduction_override in (None, "none", "mean", "sum")
        options: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index}
        if reduction_override is None:
            return super().forward(pred, target, **options)
        if isinstance(self, Ours):
            return super().forward(pred, target, **options, reduction=reduction_override)
        before: Any = getattr(self, "reduction", "mean")
        self.reduction = reduction_override
        try:
            return super().forward(pred, target, **options)
        finally:
            self.reduction = before
