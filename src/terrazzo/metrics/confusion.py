"""The confusion matrix of a data set and every score that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import UserError, nearest

# metric group in configs -> the per-class scores that it shows
GROUPS = {"mIoU": ("IoU", "Acc"), "mDice": ("Dice", "Acc"), "mFscore": ("Fscore", "Precision", "Recall")}


class ConfusionMatrix:
    """Counts of (label, prediction) pairs, K x K whatever the number of images; 255 in a label is left out."""

    def __init__(self, num_classes: int, ignore_index: int = 255, device: Any = "cpu") -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)  # label, prediction

    def update(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Count class maps of one shape and return their own counts, K x K. Raises UserError for a label outside."""
        counts = count_pairs(predictions, labels, self.num_classes, self.ignore_index)
        self.counts += counts.to(self.counts.device)
        return counts

    def compute(
        self, groups: Sequence[str] = ("mIoU",), classes: Sequence[str] = (), beta: float = 1.0
    ) -> dict[str, Any]:
        """Scores in percent: aAcc, the groups' means, and `per_class`; a class that never occurs is None."""
        check_groups(groups)
        counts = self.counts.double().cpu()
        hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        precision, recall = hits / predicted, hits / labelled
        scores = {
            "IoU": hits / (labelled + predicted - hits),
            "Acc": recall,
            "Dice": 2 * hits / (labelled + predicted),
            "Fscore": (1 + beta**2) * hits / (beta**2 * labelled + predicted),
            "Precision": precision,
            "Recall": recall,
        }
        names = list(classes) or [str(index) for index in range(self.num_classes)]
        shown = list(dict.fromkeys(score for group in groups for score in GROUPS[group]))
        result: dict[str, Any] = {"aAcc": percent(hits.sum() / counts.sum())}
        for score in shown:
            result[f"m{score}"] = percent(scores[score].nanmean())
        result["per_class"] = {
            name: {score: percent(scores[score][index]) for score in shown} for index, name in enumerate(names)
        }
        return result

    @property
    def single_class(self) -> int | None:
        """The class that every counted pixel was predicted as, if there is just one; None otherwise."""
        present = torch.nonzero(self.counts.sum(0)).flatten().tolist()
        return present[0] if len(present) == 1 else None


def count_pairs(predictions: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels of each (label, prediction), K x K; predictions are below K. Raises UserError for a label that is not."""
    labels = labels.flatten().to(predictions.device)
    rows = max(num_classes, 256 if labels.dtype == torch.uint8 else int(labels.max()) + 1)
    pairs = labels.to(torch.int32) * num_classes
    pairs += predictions.flatten()
    counts = torch.bincount(pairs, minlength=rows * num_classes).view(rows, num_classes)
    if ignore_index < rows:
        counts[ignore_index] = 0
    outside = counts[num_classes:].sum(1).nonzero()
    if len(outside):
        worst = num_classes + int(outside[-1])
        raise UserError(f"a label has the value {worst}, outside the {num_classes} classes")
    return counts[:num_classes]


def check_groups(groups: Sequence[str]) -> None:
    """Raise UserError for a metric that there is not, with the nearest ones."""
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"no metric is called '{group}'{nearest(group, GROUPS)}")


def percent(value: Tensor) -> float | None:
    """A fraction as percent, None where it is not defined."""
    return None if bool(value.isnan()) else 100 * float(value)
