"""Differences between two models on the same images: intervals, p-values, and how many images would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from terrazzo.metrics.bootstrap import draw_sums
from terrazzo.metrics.confusion import class_scores, mean

LEVEL = 0.05  # of significance
NEEDED = 1.96 + 0.8416  # deviations between a difference and zero for a test at LEVEL that finds it 8 times in 10


@dataclass(frozen=True)
class Difference:
    """A score of two models on the same images, in percent, and the 95 % interval of the second minus the first.

    `deviation` is that of the difference between data sets of as many images; `p` is the two-sided p-value, and
    `images` is the number of images that have a say.
    """

    first: float
    second: float
    low: float
    high: float
    deviation: float
    p: float
    images: int

    @property
    def value(self) -> float:
        """Points by which the second is higher."""
        return self.second - self.first

    @property
    def images_needed(self) -> float:
        """The number of images that would probably tell, if the difference is as large as it seems; inf for none."""
        return self.images * (NEEDED * self.deviation / self.value) ** 2 if self.value else math.inf


def paired_differences(
    first: np.ndarray, second: np.ndarray, classes: Sequence[str], draws: int
) -> dict[str, Difference]:
    """The differences in mIoU and in each class's IoU, from right, labelled and predicted pixels (n, 3, K) of images.

    Images are resampled with replacement, the same ones for both models (Efron, 1979). A p-value is never below what a
    test on the signs of so few images could give. Classes without an IoU in either model are left out.
    """
    pairs = np.stack([first, second], axis=1)  # n, 2, 3, K
    before, after = iou_scores(pairs.sum(0))  # 1 + K each
    drawn = np.concatenate([np.diff(iou_scores(sums), axis=1)[:, 0] for sums in draw_sums(pairs, draws)])
    has_class = pairs[:, :, 1:].sum((1, 2)) > 0  # n, K
    images = [int(has_class.any(1).sum()), *has_class.sum(0).tolist()]
    return {
        name: difference(before[index], after[index], drawn[:, index], images[index])
        for index, name in enumerate(["mIoU", *classes])
        if not np.isnan([before[index], after[index]]).any()
    }


def difference(first: Any, second: Any, drawn: np.ndarray, images: int) -> Difference:
    """A difference from those of resampled data sets (draws), NaN where these have none.

    The tails are those of Student's distribution, as resampling few images varies too little (Hesterberg, The
    American Statistician 2015).
    """
    drawn = drawn[~np.isnan(drawn)]
    tail = min(0.5, (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn)))
    if images > 1:
        wider, student = math.sqrt(images / (images - 1)), stats.t(images - 1)
        outside = float(stats.norm.cdf(wider * student.ppf(LEVEL / 2)))
        p = max(2 * float(student.cdf(stats.norm.ppf(tail) / wider)), 2.0 ** (1 - images))
    else:
        outside, p = 0.0, 1.0
    low, high = np.quantile(drawn, [outside, 1 - outside]) if len(drawn) else (math.nan, math.nan)
    deviation = float(drawn.std()) if len(drawn) else math.nan
    return Difference(float(first), float(second), float(low), float(high), deviation, p, images)


def iou_scores(sums: np.ndarray) -> np.ndarray:
    """mIoU and the IoU of each class (..., 1 + K), in percent, from counts (..., 3, K)."""
    iou = 100 * class_scores(sums[..., 0, :], sums[..., 1, :], sums[..., 2, :])["IoU"]
    return np.concatenate([mean(iou)[..., None], iou], axis=-1)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, raised so that a level holds for all of them together (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return found.tolist()
