"""Transforms that change an image's size; each first determines the size, so that a crop can be fused with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair, ceil_div
from terrazzo.transforms.base import Step, for_each_map, image_of, transform
from terrazzo.transforms.geometry import (
    fitted_size,
    interpolation_code,
    resize,
    scaled_length,
)

UNBOUNDED = 1 << 31  # pixels: an edge that is as long as the other one makes it


def as_scale(value: Any, name: str, *, unbounded: bool = False) -> tuple[Any, Any]:
    """Two edges of more than 0 pixels, or factors; one of an `unbounded` scale may be infinite. Raises UserError."""
    edges = value
    if unbounded and isinstance(value, (list, tuple)) and list(value).count(math.inf) == 1:
        edges = [UNBOUNDED if edge == math.inf else edge for edge in value]
    pair = as_pair(edges, name)
    if min(pair) <= 0:
        raise UserError(f"{name} must be above 0, not {value!r}")
    return pair


class Resizing(Step):
    """A transform that resamples the image and its targets to `target_size`."""

    moves_pixels = True

    interpolation: str

    def target_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return (width, height) for an image of height x width."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = image_of(sample, self).shape[:2]
        step = self.drawn(height, width, rng)
        size = step.target_size(height, width, rng)
        for_each_map(sample, lambda array, interpolation, _: resize(array, size, interpolation), self.interpolation)
        return record_resize(sample, (height, width), size, step)

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Resizing:
        """Return the transform without its random choice."""
        return self


def record_resize(sample: Sample, before: tuple[int, int], size: tuple[int, int], step: Resizing) -> Sample:
    """Note the factors (width, height) of a resize in `sample.meta`, and the scale that they come from."""
    scale, keep_ratio = (step.pixels(*before), step.keep_ratio) if isinstance(step, Resize) else (size, True)
    sample.meta.update(scale=scale, keep_ratio=keep_ratio)
    sample.meta["scale_factor"] = (size[0] / before[1], size[1] / before[0])
    return sample


@transform
class Resize(Resizing):
    """To `scale` (width, height), or by `scale_factor` (one, or width and height).

    `keep_ratio` shrinks or enlarges the image until its longer and shorter edge fit those of the scale.
    """

    scale: Any = None
    scale_factor: Any = None
    keep_ratio: bool = False
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.scale is None and self.scale_factor is None:
            raise UserError("Resize needs scale=(width, height) or scale_factor")
        interpolation_code(self.interpolation)

    def pixels(self, height: int, width: int) -> tuple[Any, Any]:
        """Return the scale in pixels (width, height)."""
        if self.scale is not None:
            return as_scale(self.scale, "Resize's scale", unbounded=self.keep_ratio)
        factors = as_scale(self.scale_factor, "Resize's scale_factor")
        return scaled_length(width, factors[0]), scaled_length(height, factors[1])

    def target_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        scale = self.pixels(height, width)
        return fitted_size(height, width, scale) if self.keep_ratio else (int(scale[0]), int(scale[1]))


@transform
class ResizeShortestEdge(Resizing):
    """The shorter edge becomes `scale` (of two numbers the smaller), unless the longer would exceed `max_size`."""

    scale: Any
    max_size: float | None = None
    interpolation: str = "bilinear"

    def target_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        factor = min(as_scale(self.scale, "ResizeShortestEdge's scale", unbounded=True)) / min(height, width)
        if self.max_size:
            factor = min(factor, self.max_size / max(height, width))
        return scaled_length(width, factor), scaled_length(height, factor)


@dataclass(frozen=True)
class _RandomSize(Resizing):
    """Draw a scale and leave the rest to the transform called `resize_type`."""

    random = True

    resize_type: str = "Resize"
    keep_ratio: bool = False
    max_size: float | None = None
    interpolation: str = "bilinear"

    def draw_scale(self, height: int, width: int, rng: np.random.Generator) -> Any:
        raise NotImplementedError

    def target_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        return self.drawn(height, width, rng).target_size(height, width, rng)

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Resizing:
        scale = self.draw_scale(height, width, rng)
        if self.resize_type == "ResizeShortestEdge":
            return ResizeShortestEdge(scale, self.max_size)
        if self.resize_type == "Resize":
            return Resize(scale, keep_ratio=self.keep_ratio)
        raise UserError(f"resize_type is Resize or ResizeShortestEdge, not '{self.resize_type}'")


@transform
class RandomResize(_RandomSize):
    """To `scale` (width, height) times a factor drawn from `ratio_range`, or to a scale drawn between two scales.

    Without a scale the factor applies to the image's own size.
    """

    scale: Any = None
    ratio_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self._two_scales and self.ratio_range is None:
            raise UserError("RandomResize needs ratio_range=(smallest, largest), or two scales to draw between")

    @property
    def _two_scales(self) -> bool:
        return isinstance(self.scale, Sequence) and isinstance(self.scale[0], Sequence)

    def draw_scale(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self._two_scales:
            scales = [as_scale(scale, "RandomResize's scale") for scale in self.scale]
            longer = sorted(max(scale) for scale in scales)
            shorter = sorted(min(scale) for scale in scales)
            return int(rng.integers(longer[0], longer[-1] + 1)), int(rng.integers(shorter[0], shorter[-1] + 1))
        ratio = rng.uniform(*as_scale(self.ratio_range, "RandomResize's ratio_range"))
        width, height = (width, height) if self.scale is None else as_scale(self.scale, "RandomResize's scale")
        return max(1, int(width * ratio)), max(1, int(height * ratio))


@transform
class RandomChoiceResize(_RandomSize):
    """To one of `scales`, each a number or (width, height)."""

    scales: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not len(self.scales):
            raise UserError("RandomChoiceResize needs scales, a list of numbers or of (width, height)")

    def draw_scale(self, height: int, width: int, rng: np.random.Generator) -> Any:
        return self.scales[int(rng.integers(len(self.scales)))]


@transform
class ResizeToMultiple(Resizing):
    """Up to the next multiples of `size_divisor`."""

    size_divisor: int = 32
    interpolation: str = "bilinear"

    def target_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        step = self.size_divisor
        return ceil_div(width, step) * step, ceil_div(height, step) * step


@transform
class SegRescale(Step):
    """Resample the targets, not the image, by `scale_factor`."""

    moves_pixels = True

    scale_factor: float = 1

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for target in sample.targets.values():
            height, width = target.array.shape[:2]
            size = (scaled_length(width, self.scale_factor), scaled_length(height, self.scale_factor))
            target.array = resize(target.array, size, target.interpolation)
        return sample
