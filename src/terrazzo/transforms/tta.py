"""Test-time augmentation: one sample becomes several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.base import as_pair, copy_sample
from terrazzo.transforms.compose import Compose


@TRANSFORMS.register
@dataclass(frozen=True)
class TestTimeAug:
    """A list of samples, one for every combination that takes one spec from each list in `transforms`."""

    transforms: Sequence[Sequence[Any]]

    keeps_specs = ("transforms",)
    __test__ = False  # not a test, whatever its name suggests to pytest

    def __post_init__(self) -> None:
        if not all(isinstance(choices, Sequence) and len(choices) for choices in self.transforms):
            raise UserError("TestTimeAug's transforms is a list of lists: the choices for each step")
        assert self.pipelines  # built now, so that a wrong spec shows when the config is read

    @cached_property
    def pipelines(self) -> list[Compose]:
        """One for each combination; the choices of the first step vary slowest."""
        return [Compose(steps) for steps in itertools.product(*self.transforms)]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> list[Sample]:
        return [pipeline(copy_sample(sample), rng) for pipeline in self.pipelines]


@TRANSFORMS.register
@dataclass(frozen=True)
class MultiScaleFlipAug:
    """A list of samples: each of `scales` or `scale_factor`, as it is and with `allow_flip` mirrored each way."""

    transforms: Sequence[Any]
    scales: Any = None
    scale_factor: Any = None
    allow_flip: bool = False
    flip_direction: Any = "horizontal"
    resize_cfg: dict[str, Any] | None = None
    flip_cfg: dict[str, Any] | None = None

    keeps_specs = ("transforms",)

    def __post_init__(self) -> None:
        if (self.scales is None) == (self.scale_factor is None):
            raise UserError("MultiScaleFlipAug needs either scales, a list of (width, height), or scale_factor")
        assert self.pipelines  # built now, so that a wrong spec shows when the config is read

    @cached_property
    def pipelines(self) -> list[Compose]:
        """One for each size and mirroring; sizes vary slowest."""
        resize = {"type": "Resize", "keep_ratio": True, **(self.resize_cfg or {})}
        flip = {"type": "RandomFlip", **(self.flip_cfg or {})}
        flips = [{**flip, "prob": 0.0}]
        if self.allow_flip:
            directions = [self.flip_direction] if isinstance(self.flip_direction, str) else self.flip_direction
            flips += [{**flip, "prob": 1.0, "direction": direction} for direction in directions]
        sizes = [{**resize, key: value} for key, value in self._sizes()]
        return [Compose([size, mirror, *self.transforms]) for size, mirror in itertools.product(sizes, flips)]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> list[Sample]:
        return [pipeline(copy_sample(sample), rng) for pipeline in self.pipelines]

    def _sizes(self) -> list[tuple[str, Any]]:
        if self.scales is not None:
            several = isinstance(self.scales[0], Sequence)
            return [("scale", as_pair(scale, "scales")) for scale in (self.scales if several else [self.scales])]
        factors = self.scale_factor if isinstance(self.scale_factor, Sequence) else [self.scale_factor]
        return [("scale_factor", factor) for factor in factors]
