"""The loss of a validation, from logits that have been computed already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.inference.argmax import LogitsGeometry, own_logits
from terrazzo.inference.predict import Scores, View
from terrazzo.models.heads.base import DecodeHead
from terrazzo.models.layers import resize
from terrazzo.models.losses.base import class_weights
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss
from terrazzo.models.protocols import Segmentor
from terrazzo.sample import Batch


def batch_losses(model: Segmentor, batch: Batch, scored: list[Scores]) -> list[Tensor]:
    """The loss of each image of a batch, for which the model has predicted `scored`."""
    labels = batch.targets["label"]
    if labels.shape[-2:] != batch.image.shape[-2:]:
        labels = resize(labels[:, None].float(), batch.image.shape[-2:], mode="nearest")[:, 0]
    return [
        validation_loss(model.final_head, scores.views[0], own[:height, :width])
        for scores, own, (height, width) in zip(scored, labels, batch.sizes, strict=True)
    ]


def validation_loss(head: DecodeHead, view: View, labels: Tensor) -> Tensor:
    """The decode head's loss on one image's labels (H, W); plain cross-entropy if the head computes its loss otherwise.

    A softmax cross-entropy is summed over strips of the image; other losses take its logits at full size.
    """
    logits, geometry = view
    size = labels.shape[0], labels.shape[1]
    at_labels = replace(geometry, window=(0, 0, *size), flip=None, own_size=size)
    labels = labels.long()
    if type(head).loss is not DecodeHead.loss or type(head).losses is not DecodeHead.losses:
        criteria: list[Any] = [CrossEntropyLoss(avg_non_ignore=True)]
        sampler = None
    else:
        losses, sampler = head.loss_decode, head.sampler
        criteria = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
    if sampler is None and all(is_softmax(criterion) for criterion in criteria):
        return strip_losses(criteria, logits, at_labels, labels, head.ignore_index)
    whole = resize(logits[None], at_labels.input_size, align_corners=head.align_corners)[..., : size[0], : size[1]]
    return total_loss(head.losses(whole, labels[None]))


def is_softmax(criterion: Any) -> bool:
    """Return whether a loss is the mean of the pixels' softmax cross-entropy."""
    plain = isinstance(criterion, CrossEntropyLoss) and criterion.reduction == "mean"
    return plain and criterion.compute == criterion.softmax


def strip_losses(
    criteria: list[Any], logits: Tensor, at_labels: LogitsGeometry, labels: Tensor, ignore_index: int
) -> Tensor:
    """The sum of softmax cross-entropies, each the mean over the image, computed strip by strip."""
    sums = logits.new_zeros(len(criteria), dtype=torch.float32)
    waiting = labels.flatten()
    for values in own_logits(logits, at_labels):  # p, K
        own, waiting = waiting[: len(values)], waiting[len(values) :]
        for index, criterion in enumerate(criteria):
            sums[index] += criterion(values, own, ignore_index=ignore_index, reduction="sum")
    divisors = [c.divisor(labels, class_weights(c.class_weight, logits), ignore_index) for c in criteria]
    least = torch.finfo(torch.float32).eps
    return torch.stack([total / (divisor + least) for total, divisor in zip(sums, divisors, strict=True)]).sum()


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the entries whose name contains "loss"."""
    return torch.stack([value for name, value in losses.items() if "loss" in name]).sum()
