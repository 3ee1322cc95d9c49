"""Scores of estimated depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from terrazzo.errors import UserError, nearest
from terrazzo.registry import METRICS

DEPTH_SCORES = ("d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog")
CROPS = {"nyu_crop": (slice(45, 471), slice(41, 601))}  # rows, columns of 480x640 that NYU is judged on


@METRICS.register(name="depth")
class DepthEvaluator:
    """The scores of a depth estimator: means over images of those of Eigen et al. (NeurIPS 2014), on pixels in a range.

    `d1` to `d3` are the fractions of pixels off by less than a factor of 1.25, its square, its cube; `rmse` is in the
    unit of the depth. Raises UserError for an unknown score or crop.
    """

    target = "depth"
    single_class = None
    sums = ("totals", "images")

    def __init__(
        self,
        *,
        depth_metrics: Sequence[str] | None = None,
        min_depth_eval: float = 0.0,
        max_depth_eval: float = float("inf"),
        crop_type: str | None = None,
    ) -> None:
        for score in depth_metrics or ():
            if score not in DEPTH_SCORES:
                raise UserError(f"no depth metric is called '{score}'{nearest(score, DEPTH_SCORES)}")
        if crop_type is not None and crop_type not in CROPS:
            raise UserError(f"DepthMetric: crop_type '{crop_type}' is unknown; use {', '.join(CROPS)}")
        self.shown = tuple(depth_metrics or DEPTH_SCORES)
        self.lowest, self.highest, self.crop = min_depth_eval, max_depth_eval, crop_type
        self.parts = [self]  # what holds sums
        self.totals, self.images = np.zeros(len(DEPTH_SCORES)), 0

    def update(self, prediction: Tensor, depth: Tensor) -> None:
        """Count one image's estimated and measured depth (H, W), zero where nothing was measured."""
        truth = depth.cpu().double().numpy()
        valid = (truth > self.lowest) & (truth < self.highest)
        if self.crop is not None:
            kept = np.zeros_like(valid)
            kept[CROPS[self.crop]] = True
            valid &= kept
        if valid.any():
            self.totals += depth_scores(prediction.cpu().double().numpy()[valid], truth[valid])
            self.images += 1

    def compute(self) -> dict[str, Any]:
        """Return the scores, not in percent; None without a measured pixel."""
        means = dict(zip(DEPTH_SCORES, self.totals / max(1, self.images), strict=True))
        return {score: float(means[score]) if self.images else None for score in self.shown}


def depth_scores(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the scores of some pixels, in the order of DEPTH_SCORES."""
    ratio = np.maximum(truth / found, found / truth)
    error, logs = found - truth, np.log(found) - np.log(truth)
    return np.array(
        [
            *((ratio < 1.25**power).mean() for power in (1, 2, 3)),
            (np.abs(error) / truth).mean(),
            (error**2 / truth).mean(),
            np.sqrt((error**2).mean()),
            np.sqrt((logs**2).mean()),
            np.abs(logs).mean() / np.log(10),
            np.sqrt((logs**2).mean() - 0.5 * logs.mean() ** 2),
        ]
    )
