"""IoU per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.metrics.base import Metric, Seen, percent, percents
from terrazzo.metrics.confusion import class_scores, mean, totals
from terrazzo.registry import METRICS


@METRICS.register(name="per-image")
class PerImageIoU(Metric):
    """Two means of the IoU of each class in each image (Wang et al., NeurIPS 2023).

    "mIoU_I": the mean over an image's classes, then over images. "mIoU_C": the mean over the images of a class, then
    over classes. A class counts in an image where it is labelled or predicted.
    """

    sums = ("class_sums", "class_images", "image_sum", "images")

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.class_sums, self.class_images = np.zeros(len(classes)), np.zeros(len(classes))
        self.image_sum, self.images = 0.0, 0

    def update(self, seen: Seen) -> None:
        iou = image_iou(seen)
        present = ~np.isnan(iou)
        if not present.any():
            return
        self.class_sums[present] += iou[present]
        self.class_images += present
        self.image_sum += float(mean(iou))
        self.images += 1

    def compute(self) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):
            per_class = self.class_sums / self.class_images
        of_images = self.image_sum / self.images if self.images else np.nan
        return {
            "mIoU_I": percent(of_images),
            "mIoU_C": percent(mean(per_class)),
            "per_class": {"IoU_C": percents(per_class)},
        }


def image_iou(seen: Seen) -> np.ndarray:
    """Return the IoU of each class (K) in one image, as a fraction; NaN for those neither labelled nor predicted."""
    return class_scores(*totals(seen.counts))["IoU"]
