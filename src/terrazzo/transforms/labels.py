"""From the values that label files hold to the classes of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

IGNORED = 255
LARGEST_EXACT = 2**24  # pixels that a histogram of float32 counts exactly


def fit_type(label: np.ndarray) -> np.ndarray:
    """Class indices as uint8 where they fit, else as int32."""
    return label.astype(np.uint8 if label.max(initial=0) <= 255 else np.int32)


def value_counts(label: np.ndarray) -> dict[int, int]:
    """The values of a label with their number of pixels, in ascending order."""
    if label.dtype == np.uint8:
        pixels, total = np.ascontiguousarray(label).reshape(-1), np.zeros(256, np.int64)
        for start in range(0, pixels.size, LARGEST_EXACT):  # several times faster than NumPy
            part = pixels[start : start + LARGEST_EXACT, None]
            total += cv2.calcHist([part], [0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
        return {int(value): int(total[value]) for value in total.nonzero()[0]}
    values, counts = np.unique(label, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


@dataclass(frozen=True)
class LabelMapping:
    """From stored label values to classes: `reduce_zero_label` (0 is ignored, the rest minus one), then `label_map`.

    With `order`, class k of these is then class `order[k]` of `classes` ones. The stored values in `ignore` become 255
    in any case; 255 stays 255 unless `label_map` names it, and a class below zero in `label_map` becomes 255 too.
    """

    reduce_zero_label: bool = False
    label_map: Mapping[Any, int] | None = None
    ignore: Sequence[int] = ()
    order: Sequence[int] = ()
    classes: int = 0

    @property
    def is_identity(self) -> bool:
        """True where every value is a class as it is stored."""
        return not (self.reduce_zero_label or self.label_map or len(self.ignore) or self.order)

    def apply(self, label: np.ndarray) -> np.ndarray:
        """A label of stored values as one of classes: uint8 where they fit, else int32."""
        if self.is_identity:
            return label
        if label.dtype == np.uint8:
            values, inverse = np.arange(256), None
        else:
            values, inverse = np.unique(label, return_inverse=True)
        table = values.copy()
        if self.reduce_zero_label:
            table = values - 1
            table[np.isin(values, (0, IGNORED))] = IGNORED
        reduced = table.copy()
        for old, new in (self.label_map or {}).items():
            table[reduced == int(old)] = new if new >= 0 else IGNORED
        if self.order:
            known, outside = table < len(self.order), (table >= len(self.order)) & (table != IGNORED)
            table[outside] = np.maximum(table[outside], self.classes)  # still outside
            table[known] = np.array(self.order)[table[known]]
        table[np.isin(values, list(self.ignore))] = IGNORED
        if inverse is not None:
            return fit_type(table[inverse].reshape(label.shape))
        return cv2.LUT(label, table.astype(np.uint8)) if table.max() <= 255 else fit_type(table[label])

    def classes_of(self, values: Sequence[int]) -> list[int]:
        """The classes that some stored values stand for."""
        if not values:
            return []
        return self.apply(np.array([values], np.uint8 if max(values) <= 255 else np.int32))[0].tolist()
