"""The confusion matrix of a data set, every score that follows from it, and their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.metrics.base import percent

Array = np.ndarray

IGNORED = 255  # in labels

# metric group in configs -> the per-class scores that it shows
GROUPS = {"mIoU": ("IoU", "Acc"), "mDice": ("Dice", "Acc"), "mFscore": ("Fscore", "Precision", "Recall")}


class ConfusionMatrix:
    """Counts of (label, prediction) pairs, K x K for any number of images; 255 in a label is ignored."""

    sums = ("counts",)

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)  # label, prediction

    def update(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Count class maps of one shape and return their own counts, K x K. Raises UserError for a label outside."""
        counts = count_pairs(predictions, labels, self.num_classes)
        self.counts += counts.to(self.counts.device)
        return counts

    def compute(
        self,
        groups: Sequence[str] = ("mIoU",),
        classes: Sequence[str] = (),
        beta: float = 1.0,
        absent: float | None = None,
    ) -> dict[str, Any]:
        """Scores in percent: aAcc, the groups' means, and `per_class`; a class that never occurs is `absent`."""
        scores = class_scores(*totals(self.counts), beta, absent)
        return summary(scores, groups, classes or [str(index) for index in range(self.num_classes)], percent)

    @property
    def single_class(self) -> int | None:
        """The class that every counted pixel was predicted as, if there is just one; None otherwise."""
        present = torch.nonzero(self.counts.sum(0)).flatten().tolist()
        return present[0] if len(present) == 1 else None


def count_pairs(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels of each (label, prediction), K x K; predictions are below K. Raises UserError for other labels."""
    labels = labels.flatten().to(predictions.device)
    rows = max(num_classes, 256 if labels.dtype == torch.uint8 else int(labels.max()) + 1)
    pairs = labels.to(torch.int32) * num_classes
    pairs += predictions.flatten()
    counts = torch.bincount(pairs, minlength=rows * num_classes).view(rows, num_classes)
    if rows > IGNORED:
        counts[IGNORED] = 0
    outside = counts[num_classes:].sum(1).nonzero()
    if len(outside):
        worst = num_classes + int(outside[-1])
        raise UserError(f"a label has the value {worst}, outside the {num_classes} classes")
    return counts[:num_classes]


def totals(counts: Any) -> tuple[Array, Array, Array]:
    """Return the correct, labelled and predicted pixels (K) of each class from counts (K, K) on any device."""
    counts = np.asarray(counts.cpu() if isinstance(counts, Tensor) else counts)
    return counts.diagonal(), counts.sum(1), counts.sum(0)


def class_scores(
    hits: Array, labelled: Array, predicted: Array, beta: float = 1.0, absent: float | None = None
) -> dict[str, Array]:
    """Return fractions of each class (..., K) from its correct, labelled and predicted pixels.

    "aAcc" (...) is over all classes. What is undefined is NaN, or `absent`.
    """
    hits, labelled, predicted = (np.asarray(values, np.float64) for values in (hits, labelled, predicted))
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {
            "aAcc": hits.sum(-1) / labelled.sum(-1),
            "IoU": hits / (labelled + predicted - hits),
            "Acc": hits / labelled,
            "Dice": 2 * hits / (labelled + predicted),
            "Fscore": (1 + beta**2) * hits / (beta**2 * labelled + predicted),
            "Precision": hits / predicted,
            "Recall": hits / labelled,
        }
    return scores if absent is None else {name: np.nan_to_num(values, nan=absent) for name, values in scores.items()}


def mean(values: Array) -> Array:
    """Return the mean over the defined values of the last axis; NaN where there are none."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, values, 0).sum(-1) / defined.sum(-1)


def summary(
    scores: Mapping[str, Array], groups: Sequence[str], classes: Sequence[str], shown: Callable[[Array], Any]
) -> dict[str, Any]:
    """Return aAcc and the groups' means, and under "per_class" their scores of each class, each as `shown` makes it."""
    names = list(dict.fromkeys(score for group in groups for score in GROUPS[group]))
    result: dict[str, Any] = {"aAcc": shown(scores["aAcc"])}
    result |= {f"m{name}": shown(mean(scores[name])) for name in names}
    result["per_class"] = {
        own: {name: shown(scores[name][..., index]) for name in names} for index, own in enumerate(classes)
    }
    return result
