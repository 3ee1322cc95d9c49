"""Mirroring and rotating."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.transforms.base import (
    Probability,
    Step,
    check_probability,
    check_range,
    for_each_map,
    symmetric_range,
    transform,
)
from terrazzo.transforms.geometry import FLIPS, flip, rotate


@transform
class RandomFlip(Step):
    """Mirror with `prob`, in one of the directions `horizontal`, `vertical`, `diagonal` (both at once).

    Several directions share one probability equally, or have one each. `swap_seg_labels` lists pairs of classes
    (left arm, right arm...) that are swapped when the image is mirrored from left to right.
    """

    random = True
    moves_pixels = True

    prob: Any = 0.5
    direction: Any = "horizontal"
    swap_seg_labels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        directions, probabilities = self._choices()
        for direction in directions:
            if direction not in FLIPS:
                raise UserError(f"RandomFlip's direction is one of {', '.join(FLIPS)}, not '{direction}'")
        if len(directions) != len(probabilities):
            raise UserError(f"RandomFlip has {len(probabilities)} probabilities for {len(directions)} directions")
        check_probability(min(probabilities), "RandomFlip's prob")
        check_probability(round(sum(probabilities), 9), "the sum of RandomFlip's prob")

    def _choices(self) -> tuple[list[str], list[float]]:
        directions = [self.direction] if isinstance(self.direction, str) else list(self.direction)
        if isinstance(self.prob, (int, float)):
            return directions, [self.prob / len(directions)] * len(directions)
        return directions, list(self.prob)

    def draw_direction(self, rng: np.random.Generator) -> str | None:
        """Draw a direction, or None to leave an image as it is."""
        directions, probabilities = self._choices()
        chosen = int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right"))
        return directions[chosen] if chosen < len(directions) else None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        direction = self.draw_direction(rng)
        sample.meta["flip"], sample.meta["flip_direction"] = direction is not None, direction
        if direction is None:
            return sample
        sample.meta["swap_seg_labels"] = self.swap_seg_labels
        for_each_map(sample, lambda array, *_: flip(array, direction))
        if self.swap_seg_labels and direction == "horizontal" and "label" in sample.targets:
            sample.targets["label"].array = swap_classes(sample.targets["label"].array, self.swap_seg_labels)
        return sample


def swap_classes(label: np.ndarray, pairs: Sequence[Any]) -> np.ndarray:
    """Exchange the two classes of each pair; `pairs` may be nested or flat."""
    swapped = label.copy()
    for first, second in np.reshape(pairs, (-1, 2)):
        swapped[label == first] = second
        swapped[label == second] = first
    return swapped


def check_degree(value: Any, owner: str) -> None:
    """Raise UserError for anything but a range of degrees, or x of zero and more for -x to x."""
    check_range((-value, value) if isinstance(value, (int, float)) else value, owner)


@transform
class RandomRotate(Step):
    """Rotate clockwise by an angle drawn from `degree` (a range, or x for -x to x) with probability `prob`."""

    random = True
    moves_pixels = True

    prob: Probability
    degree: Any
    pad_val: float = 0
    seg_pad_val: float = 255
    center: Sequence[float] | None = None
    auto_bound: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_degree(self.degree, "RandomRotate's degree")
        if self.center is not None and self.auto_bound:
            raise UserError("RandomRotate takes either center or auto_bound")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        turned = rng.random() < self.prob
        angle = rng.uniform(*symmetric_range(self.degree, "RandomRotate's degree"))
        if turned:
            turn = partial(rotate, angle=angle, center=self.center, auto_bound=self.auto_bound)
            for_each_map(sample, turn, fill=self.pad_val, label_fill=self.seg_pad_val)
        return sample


@transform
class RandomRotFlip(Step):
    """Rotate by quarter turns and mirror with `flip_prob`, and rotate by an angle from `degree` with `rotate_prob`."""

    random = True
    moves_pixels = True

    rotate_prob: Probability = 0.5
    flip_prob: Probability = 0.5
    degree: Any = (-20, 20)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_degree(self.degree, "RandomRotFlip's degree")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < self.flip_prob:
            quarters = int(rng.integers(4))
            direction = ("vertical", "horizontal")[int(rng.integers(2))]
            for_each_map(sample, lambda array, *_: flip(np.ascontiguousarray(np.rot90(array, quarters)), direction))
        if rng.random() < self.rotate_prob:
            angle = rng.uniform(*symmetric_range(self.degree, "RandomRotFlip's degree"))
            for_each_map(sample, partial(rotate, angle=angle), label_fill=255)
        return sample
