"""Confidence intervals from resampled test sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from terrazzo.metrics.base import Seen, percent
from terrazzo.metrics.confusion import class_scores, summary, totals

AT_ONCE = 64  # resampled data sets scored together


class Bootstrap:
    """95 % intervals of the scores of a confusion matrix; keeps three numbers a class for each image."""

    def __init__(self, classes: Sequence[str], draws: int) -> None:
        self.classes, self.draws = list(classes), draws
        self.images: list[np.ndarray] = []  # each 3, K: right, labelled, predicted

    def update(self, seen: Seen) -> None:
        self.images.append(np.stack(totals(seen.counts)).astype(np.int32))

    def compute(self, groups: Sequence[str], beta: float = 1.0, absent: float | None = None) -> dict[str, Any]:
        """Return (low, high) in percent of aAcc and the groups' means, and of each class's scores under "per_class"."""
        drawn = [
            class_scores(sums[:, 0], sums[:, 1], sums[:, 2], beta, absent)
            for sums in draw_sums(np.stack(self.images), self.draws)
        ]
        scores = {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}  # draws[, K]
        return summary(scores, groups, self.classes, interval)


def draw_sums(images: np.ndarray, draws: int) -> Iterator[np.ndarray]:
    """Sums over resampled data sets (draws, ...), some at a time, of numbers of each image (n, ...).

    The draws are always the same ones.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    rng = np.random.default_rng(0)
    for first in range(0, draws, AT_ONCE):
        count = min(AT_ONCE, draws - first)
        times = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=count)  # count, n
        yield (times @ flat).reshape(count, *images.shape[1:])


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """Return the middle 95 % of the defined values of some fractions, in percent."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [0.025, 0.975])
    return percent(low), percent(high)
