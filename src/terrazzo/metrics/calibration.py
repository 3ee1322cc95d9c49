"""Scores of the probabilities: calibration, and the best threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.metrics.base import Metric, Seen, percent
from terrazzo.models.probabilities import probabilities
from terrazzo.registry import METRICS

BINS = 15

SAMPLED = 1024  # pixels of an image on which temperatures are tried

TEMPERATURES = np.geomspace(0.1, 10, 61)


@METRICS.register(name="calibration")
class Calibration(Metric):
    """Expected calibration error over all pixels, and the temperature that would minimise it (Guo et al., ICML 2017).

    The temperature minimises the cross-entropy of the logits divided by it, on pixels drawn from each image.
    """

    sums = ("bins", "fitted", "losses", "drawn")

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.bins = np.zeros((3, BINS))  # pixels, sum of confidences, correct pixels
        self.fitted = np.zeros((len(TEMPERATURES), 3, BINS))  # the same on drawn pixels, for each temperature
        self.losses = np.zeros(len(TEMPERATURES))
        self.drawn = self.images = 0

    def update(self, seen: Seen) -> None:
        labels, prediction = seen.labels.flatten().long(), seen.prediction.flatten().long()
        labelled = torch.nonzero(labels != 255).flatten()
        rng = np.random.default_rng(self.images)
        chosen = rng.choice(len(labelled), min(SAMPLED, len(labelled)), replace=False)
        drawn = labelled[torch.from_numpy(np.sort(chosen)).to(labelled.device)]
        samples = []
        for logits, own in strips(seen):
            found, truth = prediction[own], labels[own]
            confidence = probabilities(logits).gather(1, found[:, None])[:, 0]
            self.bins += binned(confidence[truth != 255], (found == truth)[truth != 255])
            samples.append(logits[drawn[(drawn >= own.start) & (drawn < own.stop)] - own.start])
        self.try_temperatures(torch.cat(samples), labels[drawn], prediction[drawn])
        self.images += 1

    def try_temperatures(self, logits: Tensor, labels: Tensor, prediction: Tensor) -> None:
        """Count the loss and the confidences of drawn pixels (p, K) at each temperature."""
        self.drawn += len(labels)
        two = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
        for index, temperature in enumerate(TEMPERATURES):
            logs = (two / temperature).log_softmax(1)
            self.losses[index] += float(F.nll_loss(logs, labels, reduction="sum"))
            confidence = logs.gather(1, prediction[:, None])[:, 0].exp()
            self.fitted[index] += binned(confidence, prediction == labels)

    def compute(self) -> dict[str, Any]:
        best = int(self.losses.argmin())
        counts, confidences, hits = self.bins
        reliability = [
            {"pixels": int(count), "confidence": 100 * confidence / count, "accuracy": 100 * right / count}
            for count, confidence, right in zip(counts, confidences, hits, strict=True)
            if count
        ]
        return {
            "ECE": percent(calibration_error(self.bins)),
            "temperature": lowest_point(np.log(TEMPERATURES), self.losses) if self.drawn else None,
            "ECE_fitted": percent(calibration_error(self.fitted[best])),
            "reliability": reliability,
        }


def strips(seen: Seen) -> Iterator[tuple[Tensor, slice]]:
    """Yield the logits (p, K) of an image strip by strip, with the positions of their pixels."""
    start = 0
    for logits in seen.logits():
        yield logits, slice(start, start + len(logits))
        start += len(logits)


def binned(confidence: Tensor, right: Tensor) -> np.ndarray:
    """Return pixels, sum of confidences and correct pixels (3, BINS); a bin includes its upper end."""
    index = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    parts = (None, confidence.double(), right.double())
    return np.stack([torch.bincount(index, weights, BINS).double().cpu().numpy() for weights in parts])


def calibration_error(bins: np.ndarray) -> float:
    """Return the mean distance of confidence and accuracy, as a fraction; NaN without a pixel."""
    counts, confidences, hits = bins
    return float(np.abs(confidences - hits).sum() / counts.sum()) if counts.sum() else np.nan


def lowest_point(positions: np.ndarray, values: np.ndarray) -> float:
    """Return the exponential of the minimum of a parabola through the lowest value and its neighbours."""
    best = int(np.clip(values.argmin(), 1, len(values) - 2))
    curve = np.polyfit(positions[best - 1 : best + 2] - positions[best], values[best - 1 : best + 2], 2)
    shift = -curve[1] / (2 * curve[0]) if curve[0] > 0 else 0.0
    return float(np.exp(np.clip(positions[best] + shift, positions[0], positions[-1])))
