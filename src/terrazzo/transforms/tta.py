"""Test-time augmentation: one sample becomes several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import copy_sample
from terrazzo.transforms.compose import Compose, Nested


class Views(Nested):
    """A list of samples, one from each of several pipelines."""

    keeps_specs = ("transforms",)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> list[Sample]:
        return [pipeline(copy_sample(sample), rng) for pipeline in self.transforms]


@TRANSFORMS.register
class TestTimeAug(Views):
    """A list of samples, one for every combination that takes one spec from each list in `transforms`.

    The choices of the first step vary slowest.
    """

    __test__ = False  # not a test, whatever its name suggests to pytest

    def __init__(self, transforms: Sequence[Sequence[Any]]) -> None:
        if not all(isinstance(choices, Sequence) and len(choices) for choices in transforms):
            raise UserError("TestTimeAug's transforms is a list of lists: the choices for each step")
        self.transforms = [Compose(steps) for steps in itertools.product(*transforms)]


@TRANSFORMS.register
class MultiScaleFlipAug(Views):
    """A list of samples: each of `scales` or `scale_factor`, as it is and with `allow_flip` mirrored each way.

    Sizes vary slowest.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        scales: Any = None,
        scale_factor: Any = None,
        allow_flip: bool = False,
        flip_direction: Any = "horizontal",
        resize_cfg: dict[str, Any] | None = None,
        flip_cfg: dict[str, Any] | None = None,
    ) -> None:
        if (scales is None) == (scale_factor is None):
            raise UserError("MultiScaleFlipAug needs either scales, a list of (width, height), or scale_factor")
        resize = {"type": "Resize", "keep_ratio": True, **(resize_cfg or {})}
        flip = {"type": "RandomFlip", **(flip_cfg or {})}
        flips = [{**flip, "prob": 0.0}]
        if allow_flip:
            directions = [flip_direction] if isinstance(flip_direction, str) else flip_direction
            flips += [{**flip, "prob": 1.0, "direction": direction} for direction in directions]
        sizes = [{**resize, key: value} for key, value in view_sizes(scales, scale_factor)]
        self.transforms = [Compose([size, mirror, *transforms]) for size, mirror in itertools.product(sizes, flips)]


def view_sizes(scales: Any, scale_factor: Any) -> list[tuple[str, Any]]:
    """The argument of Resize for each size: one of `scales`, or else of the factors."""
    if scales is not None:
        several = isinstance(scales[0], Sequence)
        return [("scale", as_pair(scale, "scales")) for scale in (scales if several else [scales])]
    factors = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor]
    return [("scale_factor", factor) for factor in factors]
