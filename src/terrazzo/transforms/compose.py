"""A pipeline: transforms one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.crop import fuse


@TRANSFORMS.register
class Compose:
    """Applies `transforms` (specs or built ones) in turn; with one that yields several samples it gives a list."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = [
            TRANSFORMS.build(dict(transform), f"pipeline.{index}") if isinstance(transform, dict) else transform
            for index, transform in enumerate(transforms)
        ]
        self._steps = fuse(self.transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return apply_all(self._steps, sample, rng)

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


def apply_all(steps: Sequence[Any], sample: Any, rng: np.random.Generator) -> Any:
    """Run the steps on a sample, or on every sample of a list."""
    for index, step in enumerate(steps):
        if isinstance(sample, list):
            return [apply_all(steps[index:], item, rng) for item in sample]
        sample = step(sample, rng)
    return sample
