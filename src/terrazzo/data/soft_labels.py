"""Masks whose values were changed by JPEG or by smooth resizing, and the values that they had before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

FEW_VALUES = 8  # a label with no more is not looked at
CLOSE = 24  # values this near to a more frequent one come from it
NOISE = 8  # the most by which JPEG changes a whole region
SOLID = 0.1  # the share of a value's pixels that lie inside regions of it, for a value that was drawn
RARE = 2e-4  # share of all pixels below which a value is not one that was drawn
OBJECTS = 2e-3  # the share of all pixels that objects too small for regions have at least
STRAY = 0.02  # the most pixels, as a share of all, that lie inside regions of other values


def solid_counts(label: np.ndarray, counts: Mapping[int, int]) -> dict[int, int]:
    """Count the pixels of each value whose 3x3 neighbours have it too; empty for a label of few values."""
    if label.dtype != np.uint8 or label.ndim != 2 or len(counts) <= FEW_VALUES:
        return {}
    square = np.ones((3, 3), np.uint8)
    inside = label[cv2.erode(label, square) == cv2.dilate(label, square)]
    found = np.bincount(inside, minlength=256)
    return {int(value): int(found[value]) for value in found.nonzero()[0]}


def real_values(pixels: Mapping[int, int], solid: Mapping[int, int]) -> list[int] | None:
    """The few values around which all others of masks lie, in ascending order; None for masks of true class numbers.

    Regions consist of these, edges of all others.
    """
    total = sum(pixels.values())
    drawn = [v for v in pixels if solid.get(v, 0) > SOLID * pixels[v] and pixels[v] > RARE * total]
    kept: list[int] = []
    for value in sorted(drawn, key=lambda value: -pixels[value]):
        if all(abs(value - other) > CLOSE for other in kept):
            kept.append(value)
    if kept:  # edges have no value beyond the real ones: objects too small for regions do
        low, high = min(kept) - CLOSE, max(kept) + CLOSE
        ends = [[value for value in pixels if value < low], [value for value in pixels if value > high]]
        kept += [max(end, key=lambda v: pixels[v]) for end in ends if sum(pixels[v] for v in end) > OBJECTS * total]
    stray = sum(solid.get(value, 0) for value in pixels if value not in kept)
    further = [value for value in drawn if min(abs(value - other) for other in kept) > NOISE]
    if len(kept) < 2 or len(pixels) - len(kept) <= FEW_VALUES or further or stray > STRAY * total:
        return None
    return sorted(kept)


def nearest_changes(values: Sequence[int] | None, classes: Sequence[str]) -> dict[str, Any]:
    """The change of a data section that reads such masks; empty where the values are not as many as the classes."""
    return {"label_format": nearest_grey(values)} if values and len(values) == len(classes) else {}


def nearest_grey(values: Sequence[int]) -> dict[str, Any]:
    """The label format that takes each pixel as the nearest of some grey values, one for each class."""
    return {"type": "rgb", "other": "nearest", "colours": [[value] * 3 for value in values]}
