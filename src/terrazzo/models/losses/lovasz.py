"""Lovász-softmax ("multi_class") or Lovász hinge ("binary") loss (Berman et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.losses.base import WeightedLoss, class_weights, reduce
from terrazzo.registry import MODELS


def lovasz(errors: Tensor, truth: Tensor) -> Tensor:
    """The convex extension of the Jaccard loss: `errors` of all pixels, `truth` 1 on the object (both 1-d) -> scalar.

    Each error counts by how much the Jaccard index falls when its pixel joins those with larger errors. Pixels are
    counted in float32 at least: 16 bits end at a few hundred, and under autocast a matrix product would have them.
    """
    dtype = torch.promote_types(errors.dtype, torch.float32)
    errors, order = errors.to(dtype).sort(descending=True)
    truth = truth[order].to(dtype)
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard_loss = 1 - intersection / union
    return (errors * torch.diff(jaccard_loss, prepend=jaccard_loss.new_zeros(1))).sum()


@MODELS.register
class LovaszLoss(WeightedLoss):
    """Lovász-softmax ("multi_class") or Lovász hinge ("binary") loss (Berman et al., CVPR 2018).

    `classes` averages over the classes "present" in the labels, over "all", or over a list of them. It works on the
    pixels of the batch together, or on each image (`per_image`), reduced by `reduction`. Pixels of weight 0 are
    skipped. Raises UserError for an unknown `loss_type` and where "binary" meets more than one channel.
    """

    default_name = "loss_lovasz"

    def __init__(
        self,
        *,
        loss_type: str = "multi_class",
        classes: str | Sequence[int] = "present",
        per_image: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if loss_type not in ("binary", "multi_class"):
            raise UserError(f"LovaszLoss: loss_type '{loss_type}' is unknown; use 'multi_class' or 'binary'")
        if isinstance(classes, str) and classes not in ("all", "present"):
            raise UserError(f"LovaszLoss: classes '{classes}' is unknown; use 'present', 'all' or a list of classes")
        self.loss_type, self.classes, self.per_image = loss_type, classes, per_image

    def contradiction(self, channels: int) -> str | None:
        fitting = "binary" if channels == 1 else "multi_class"
        if self.loss_type == fitting:
            return None
        return f"has loss_type='{self.loss_type}', and the head out_channels={channels}: set loss_type='{fitting}'"

    def measure(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        if self.loss_type == "binary" and logits.shape[1] != 1:
            raise UserError(f"LovaszLoss: loss_type='binary' needs a head with out_channels=1, not {logits.shape[1]}")
        compute = self.hinge if self.loss_type == "binary" else self.softmax
        valid = labels != ignore_index
        if weight is not None:
            valid = valid & (weight > 0)
        pixels = logits.movedim(1, -1)  # N, H, W, K
        if not self.per_image:
            return compute(pixels[valid], labels[valid])
        values = [compute(x[mask], y[mask]) for x, y, mask in zip(pixels, labels, valid, strict=True)]
        return reduce(torch.stack(values), None, self.reduction)

    def hinge(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (P, 1), labels (P,) of 0 and 1."""
        truth = labels.to(logits.dtype)
        return lovasz((1 - logits[:, 0] * (2 * truth - 1)).relu(), truth)

    def softmax(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (P, K), labels (P,): the mean over classes; 0 where no class counts."""
        probability = logits.softmax(1)
        named = {"present": labels.unique().tolist(), "all": range(logits.shape[1])}
        chosen: Sequence[int] = named[self.classes] if isinstance(self.classes, str) else self.classes
        per_class = class_weights(self.class_weight, logits)
        total = probability.sum() * 0
        for index in chosen:
            truth = (labels == index).to(logits.dtype)
            value = lovasz((truth - probability[:, index]).abs(), truth)
            total = total + (value if per_class is None else value * per_class[index])
        return total / max(len(chosen), 1)
