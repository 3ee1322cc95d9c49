"""The base of all losses, weighting and averaging of a loss map, and pixel accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError

T = TypeVar("T", Tensor, "Tensor | None")
NO_LABEL = 255  # the label of pixels that never count
FROM_SOFTMAX = (
    "learns from the probabilities of several classes, and out_channels is 1: take CrossEntropyLoss with "
    "use_sigmoid=True, FocalLoss or DiceLoss"
)


class SegmentationLoss(nn.Module):
    """A loss of (logits (N, K, H, W), labels (N, H, W)) -> scalar; `loss_name` is its key in the loss dict."""

    default_name = "loss"

    def __init__(self, *, loss_weight: float = 1.0, loss_name: str | None = None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name or self.default_name

    def forward(
        self, logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """`weight` (N, H, W) scales each pixel; pixels of `ignore_index` are ignored."""
        return self.loss_weight * self.measure(logits, labels, weight, ignore_index)

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        """The loss before it is multiplied by `loss_weight`."""
        raise NotImplementedError

    def contradiction(self, channels: int) -> str | None:
        """The reason why the loss cannot be computed from logits of so many channels, and the way out; or None."""
        return None

    def pixel_losses(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """The loss of each pixel (N, H, W), for samplers of hard pixels: cross-entropy, unless overridden."""
        if logits.shape[1] == 1:
            valid = labels != ignore_index
            target = (labels * valid).to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none") * valid
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore_index)


class WeightedLoss(SegmentationLoss):
    """The base of losses with class weights, and with a choice of `reduction`."""

    def __init__(
        self, *, reduction: str = "mean", class_weight: Sequence[float] | Literal["auto"] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.reduction = reduction
        self.class_weight: Any = class_weight  # numbers, once those of "auto" are counted


def reduce(values: Tensor, weight: Tensor | None, reduction: str, divisor: Tensor | float | None = None) -> Tensor:
    """Weight a loss map, then average it (over `divisor` where given), sum it, or return it ("none")."""
    if weight is not None:
        values = values * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    # the smallest step above zero keeps a batch with nothing to count at 0 instead of 0 / 0
    return values.mean() if divisor is None else values.sum() / (divisor + torch.finfo(torch.float32).eps)


def one_hot(labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return labels (N, H, W) as masks (N, K, H, W), False where ignored, and the mask (N, H, W) of valid pixels."""
    valid = (labels >= 0) & (labels != ignore_index)
    classes = torch.arange(num_classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
    return (labels.unsqueeze(1) == classes) & valid.unsqueeze(1), valid


def class_sums(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the sum (N, K) of the pixels' values (N, H, W) in each image and class; labels from 0 to K - 1."""
    sums = values.new_zeros(len(values), num_classes)
    return sums.scatter_add(1, labels.flatten(1), values.flatten(1))


def class_weights(values: Any, like: Tensor) -> Tensor | None:
    """Return class weights as a tensor on the device of `like`."""
    if isinstance(values, str):
        raise UserError(f"class_weight={values!r} is computed when training starts; elsewhere give a list of numbers")
    return None if values is None else torch.as_tensor(values, dtype=like.dtype, device=like.device)


def by_class(values: T, logits: Tensor) -> T:
    """Shape a value of each class (K,) for logits (N, K, ...); one value, or None, as it is."""
    return values if values is None or values.ndim == 0 else values.view(-1, *[1] * (logits.ndim - 2))


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor, ignore_index: int = 255, threshold: float = 0.3) -> Tensor:
    """Return the percentage of labelled pixels classified correctly; one channel of logits is a foreground score."""
    valid = labels != ignore_index
    if logits.shape[1] == 1:
        right = (logits[:, 0].sigmoid() > threshold) == labels.bool()
    else:  # the label's own logit is the highest: much cheaper than an argmax
        own = logits.gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)
        right = own >= logits.amax(1)
    return 100.0 * (right & valid).sum() / valid.sum().clamp(min=1)
