"""A pipeline: transforms one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.base import check_probability
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


@TRANSFORMS.register
class RandomApply:
    """Applies `transforms` with probability `prob`, else nothing."""

    def __init__(self, transforms: Any, prob: float = 0.5) -> None:
        check_probability(prob, "RandomApply's prob")
        self.compose, self.prob = as_pipeline(transforms), prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return self.compose(sample, rng) if rng.random() < self.prob else sample


@TRANSFORMS.register
class RandomChoice:
    """Applies one of `transforms`, each a transform or a list of them, with probabilities `prob` (equal when None)."""

    def __init__(self, transforms: Sequence[Any], prob: Sequence[float] | None = None) -> None:
        self.pipelines = [as_pipeline(choice) for choice in transforms]
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        return self.pipelines[int(rng.choice(len(self.pipelines), p=self.prob))](sample, rng)


def as_pipeline(transforms: Any) -> Compose:
    """One transform or several as a pipeline."""
    return Compose(transforms if isinstance(transforms, (list, tuple)) else [transforms])
