"""What the transforms share: their call, the loop over an image's targets, and reading pairs from configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair


class Transform(Protocol):
    """Changes a sample, drawing whatever it needs from `rng`; never writes into the arrays it was given."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any: ...


def for_each_map(
    sample: Sample, function: Callable[[np.ndarray, str, float], np.ndarray], interpolation="bilinear"
) -> None:
    """Replace the image and every target by `function(array, interpolation, fill)`."""
    if sample.image is not None:
        sample.image = function(sample.image, interpolation, 0)
    for target in sample.targets.values():
        target.array = function(target.array, target.interpolation, target.fill)


def copy_sample(sample: Sample) -> Sample:
    """A sample that shares the arrays and nothing else."""
    targets = {name: dataclasses.replace(target) for name, target in sample.targets.items()}
    return dataclasses.replace(sample, targets=targets, meta=dict(sample.meta))


def image_of(sample: Sample, user: object) -> np.ndarray:
    """The sample's image. Raises UserError where no loader stands before `user` in the pipeline."""
    if sample.image is None:
        raise UserError(f"{type(user).__name__} needs an image: put LoadImageFromFile before it in the pipeline")
    return sample.image


def symmetric_range(value: Any, what: str) -> tuple[float, float]:
    """`x` as (-x, x), a pair as it is."""
    if isinstance(value, (int, float)):
        return -abs(value), abs(value)
    return as_pair(value, what)


def check_probability(value: float, what: str) -> None:
    """Raise UserError for a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{what} is a probability between 0 and 1, not {value!r}")
