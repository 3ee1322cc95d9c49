"""Class probabilities averaged over time, so that labels flicker less."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class Smoothing:
    """The exponential average of probabilities, in which what was before a frame has the weight `share`."""

    def __init__(self, share: float, threshold: float | None) -> None:
        self.share, self.threshold = share, threshold
        self.mean: np.ndarray | None = None

    def labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The class map (H, W) uint8 of the average with the next frame's probabilities (K, H, W)."""
        if self.mean is None or self.mean.shape != probabilities.shape:
            self.mean = probabilities.astype(np.float32)
        else:
            self.mean *= self.share
            self.mean += (1 - self.share) * probabilities
        if self.threshold is not None and len(self.mean) == 2:
            return (self.mean[1] > self.threshold).astype(np.uint8)
        return self.mean.argmax(0).astype(np.uint8)


def flicker(maps: list[np.ndarray]) -> float:
    """The share of pixels whose class changes from one class map (H, W) to the next, on average."""
    return float(np.mean([(one != other).mean() for one, other in pairwise(maps)]))
