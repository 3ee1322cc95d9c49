"""The threshold of a binary model with the highest IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError
from terrazzo.metrics.base import Metric, Seen, percent
from terrazzo.metrics.calibration import strips
from terrazzo.registry import METRICS

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))


@METRICS.register(name="threshold")
class ThresholdSearch(Metric):
    """The threshold from 0.01 to 0.99 with the highest IoU of the foreground. Raises UserError for other models."""

    sums = ("counts",)

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.counts = np.zeros((2, len(THRESHOLDS) + 1), np.int64)  # background, foreground; thresholds passed

    def update(self, seen: Seen) -> None:
        edges = torch.tensor(THRESHOLDS, device=seen.labels.device)
        labels = seen.labels.flatten()
        for logits, pixels in strips(seen):
            if logits.shape[1] != 1:
                raise UserError(f"a threshold needs a model with out_channels=1; this one has {logits.shape[1]}")
            own = labels[pixels]
            passed = torch.bucketize(logits[:, 0].sigmoid(), edges)  # the number of thresholds below the probability
            for value in (0, 1):
                counts = torch.bincount(passed[own == value], minlength=len(THRESHOLDS) + 1)
                self.counts[value] += counts.cpu().numpy()

    def compute(self) -> dict[str, Any]:
        above = self.counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]  # pixels above each threshold
        with np.errstate(invalid="ignore"):
            iou = above[1] / (self.counts[1].sum() + above[0])
        best = int(np.nan_to_num(iou, nan=-1).argmax())
        return {"best_threshold": THRESHOLDS[best], "best_threshold_IoU": percent(iou[best])}
