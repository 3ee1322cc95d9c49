"""Transforms of an image's values; the targets are unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import Step, image_of
from terrazzo.transforms.colour import (
    as_bytes,
    equalise_locally,
    gamma_table,
    look_up,
    normalise,
    scale_levels,
    shift_levels,
    shift_saturation_and_hue,
    stretch,
)


@TRANSFORMS.register
@dataclass(frozen=True)
class PhotoMetricDistortion(Step):
    """Random brightness, contrast, saturation and hue, each with probability one half (Liu et al., SSD, ECCV 2016).

    Contrast comes before or after saturation and hue, at random. Saturation and hue are
    changed in images of three channels alone.
    """

    random = True

    brightness_delta: float = 32
    contrast_range: Sequence[float] = (0.5, 1.5)
    saturation_range: Sequence[float] = (0.5, 1.5)
    hue_delta: int = 18

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = as_bytes(image_of(sample, self))
        brighten, contrast_first, contrast, saturate, turn_hue = rng.random(5) < 0.5
        offset = rng.uniform(-self.brightness_delta, self.brightness_delta) if brighten else 0.0
        factor = rng.uniform(*as_pair(self.contrast_range, "contrast_range")) if contrast else 1.0
        saturation = rng.uniform(*as_pair(self.saturation_range, "saturation_range")) if saturate else 1.0
        hue = int(rng.integers(-self.hue_delta, self.hue_delta)) if turn_hue and self.hue_delta else 0

        in_hsv = (saturate or turn_hue) and image.shape[2] == 3
        if brighten:
            image = shift_levels(image, offset)
        if contrast and (contrast_first or not in_hsv):
            image = scale_levels(image, factor)
        if in_hsv:
            image = shift_saturation_and_hue(image, saturation, hue)
        if contrast and in_hsv and not contrast_first:
            image = scale_levels(image, factor)
        sample.image = image
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class Normalize(Step):
    """(image - mean) / std as float32; `to_rgb=False` gives BGR, in which order mean and std then are."""

    mean: Sequence[float]
    std: Sequence[float]
    to_rgb: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = image_of(sample, self)
        if len(self.mean) not in (1, image.shape[2]) or len(self.std) not in (1, image.shape[2]):
            raise UserError(f"Normalize has {len(self.mean)} means for an image of {image.shape[2]} channels")
        if not self.to_rgb and image.shape[2] == 3:
            image = np.ascontiguousarray(image[..., ::-1])
        sample.image = normalise(image, self.mean, self.std)
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class AdjustGamma(Step):
    """Gamma correction: 255 * (level / 255) ** (1 / gamma)."""

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise UserError(f"AdjustGamma's gamma is above zero, not {self.gamma}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample.image = look_up(as_bytes(image_of(sample, self)), gamma_table(self.gamma))
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class CLAHE(Step):
    """Contrast-limited adaptive histogram equalisation of each channel on a grid of `tile_grid_size`."""

    clip_limit: float = 40.0
    tile_grid_size: Any = (8, 8)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        tiles = as_pair(self.tile_grid_size, "CLAHE's tile_grid_size")
        sample.image = equalise_locally(image_of(sample, self), self.clip_limit, tiles)
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class Rerange(Step):
    """Stretch the image's range of values to [min_value, max_value], as float32."""

    min_value: float = 0
    max_value: float = 255

    def __post_init__(self) -> None:
        if self.min_value >= self.max_value:
            raise UserError(f"Rerange needs min_value below max_value, not {self.min_value} and {self.max_value}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample.image = stretch(image_of(sample, self), self.min_value, self.max_value)
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class RGB2Gray(Step):
    """A weighted sum of the channels as float32, in `out_channels` equal channels (as many as before when None).

    The first weight is that of blue, as in MMSegmentation, whose arrays are BGR.
    """

    out_channels: int | None = None
    weights: Sequence[float] = (0.299, 0.587, 0.114)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = image_of(sample, self)
        if len(self.weights) != image.shape[2]:
            raise UserError(f"RGB2Gray has {len(self.weights)} weights for an image of {image.shape[2]} channels")
        grey = image @ np.asarray(self.weights[::-1], np.float32)  # H, W
        sample.image = np.repeat(grey[..., None], self.out_channels or image.shape[2], axis=2)
        return sample
