"""IoU near the boundaries of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from terrazzo.metrics.base import Metric, Seen, percent, percents
from terrazzo.metrics.confusion import IGNORED, class_scores, mean, totals
from terrazzo.registry import METRICS


@METRICS.register(name="boundary")
class BoundaryIoU(Metric):
    """IoU of the classes' rims, the pixels no further than `ratio` of the diagonal from another class or the margin.

    Boundary IoU (Cheng et al., CVPR 2021), with pixels summed over the data set for each class. Ignored pixels neither
    count nor make a border.
    """

    sums = ("hits", "labelled", "predicted")

    def __init__(self, classes: Sequence[str], ratio: float = 0.02) -> None:
        super().__init__(classes)
        self.ratio = ratio
        self.hits, self.labelled, self.predicted = np.zeros((3, len(classes)), np.int64)

    def update(self, seen: Seen) -> None:
        labels, prediction, valid = as_arrays(seen)
        distance = max(1, round(self.ratio * float(np.hypot(*labels.shape))))
        of_labels = valid & rim(labels, valid, distance, margin=True)
        of_prediction = valid & rim(prediction, valid, distance, margin=True)
        both = of_labels & of_prediction & (labels == prediction)
        for total, values in (
            (self.hits, labels[both]),
            (self.labelled, labels[of_labels]),
            (self.predicted, prediction[of_prediction]),
        ):
            total += np.bincount(values, minlength=len(self.classes))

    def compute(self) -> dict[str, Any]:
        iou = class_scores(self.hits, self.labelled, self.predicted)["IoU"]
        return {"mBoundaryIoU": percent(mean(iou)), "per_class": {"BoundaryIoU": percents(iou)}}


@METRICS.register(name="trimap")
class TrimapIoU(Metric):
    """IoU of the pixels no further than each of `widths` from another class of the labels (Kohli et al., IJCV 2009)."""

    sums = ("counts",)

    def __init__(self, classes: Sequence[str], widths: Sequence[int] = (5,)) -> None:
        super().__init__(classes)
        self.widths = [int(width) for width in widths]
        self.counts = np.zeros((len(self.widths), len(classes), len(classes)), np.int64)  # band, label, prediction

    def update(self, seen: Seen) -> None:
        labels, prediction, valid = as_arrays(seen)
        for width, counts in zip(self.widths, self.counts, strict=True):
            band = valid & rim(labels, valid, width, margin=False)
            pairs = labels[band].astype(np.int64) * len(self.classes) + prediction[band]
            counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)

    def compute(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        per_class = {}
        for width, counts in zip(self.widths, self.counts, strict=True):
            iou = class_scores(*totals(counts))["IoU"]
            result[f"mTrimapIoU@{width}px"] = percent(mean(iou))
            per_class[f"TrimapIoU@{width}px"] = percents(iou)
        return result | {"per_class": per_class}


def as_arrays(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, prediction, and the mask of valid pixels."""
    labels = seen.labels.cpu().numpy()
    return labels, seen.prediction.cpu().numpy(), labels != IGNORED


def rim(classes: np.ndarray, valid: np.ndarray, distance: int, margin: bool) -> np.ndarray:
    """Return where a square of `distance` to each side contains another class, or with `margin` leaves the image."""
    kind, top = (np.uint8, 255) if int(classes[valid].max(initial=0)) < 254 else (np.uint16, 65535)
    codes = classes.astype(kind) + kind(1)
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * distance + 1, 2 * distance + 1))
    around = 0 if margin else top
    highest = cv2.dilate(np.where(valid, codes, kind(0)), square)
    inside = np.where(valid, codes, kind(top))
    lowest = cv2.erode(inside, square, borderType=cv2.BORDER_CONSTANT, borderValue=around)
    return highest != lowest
