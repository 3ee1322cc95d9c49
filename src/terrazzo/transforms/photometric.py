"""Changes of an image's values: brightness, contrast, saturation, hue, gamma; the targets stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import Step, image_of, transform

TRUNCATING = 2**-14 - 0.5  # makes OpenCV's rounding to the nearest whole number the next one below


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Return the image as uint8, real numbers clipped. Raises UserError for integers of another scale than 0 to 255."""
    if image.dtype.kind in "iu" and image.dtype != np.uint8:
        raise UserError(
            f"brightness, contrast and colours are changed in 8-bit images, and this one is {image.dtype}: remove "
            "PhotoMetricDistortion, AdjustGamma and CLAHE from the pipeline"
        )
    return image if image.dtype == np.uint8 else np.clip(image, 0, 255).astype(np.uint8)


def shift_levels(image: np.ndarray, offset: float) -> np.ndarray:
    """`level + offset`, rounded down and kept between 0 and 255, of a uint8 image."""
    flat = image.reshape(len(image), -1)
    steps = math.floor(offset)
    scalar: Any = (abs(steps), 0, 0, 0)  # OpenCV's type hints lack it
    moved = cv2.add(flat, scalar) if steps > 0 else cv2.subtract(flat, scalar)  # cv2.add of less than zero is slow
    return moved.reshape(image.shape)


def scale_levels(image: np.ndarray, factor: float) -> np.ndarray:
    """`level * factor` of a uint8 image, rounded down (unless just below a whole number) and at most 255."""
    flat = image.reshape(len(image), -1)
    return cv2.convertScaleAbs(flat, alpha=factor, beta=TRUNCATING).reshape(image.shape)


def bend_levels(image: np.ndarray, gamma: float) -> np.ndarray:
    """`255 * (level / 255) ** (1 / gamma)`, rounded down, of a uint8 image."""
    table = ((np.arange(256) / 255.0) ** (1.0 / gamma) * 255).astype(np.uint8)
    return cv2.LUT(image, table).reshape(image.shape)


def shift_saturation_and_hue(image: np.ndarray, factor: float = 1.0, shift: int = 0) -> np.ndarray:
    """Multiply the saturation and turn the hue of an RGB uint8 image by `shift` steps of two degrees."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    if shift:
        hue = cv2.LUT(hue, ((np.arange(256) + shift) % 180).astype(np.uint8))
    if factor != 1:
        saturation = scale_levels(saturation, factor)
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB)


class ValueStep(Step):
    """A transform of the image alone."""

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image (H, W, C)."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample.image = self.change(image_of(sample, self), rng)
        return sample


@transform
class PhotoMetricDistortion(ValueStep):
    """Random brightness, contrast, saturation and hue, each with probability one half (Liu et al., SSD, ECCV 2016).

    Contrast comes before or after saturation and hue, at random; these two need images of three channels. With
    `gamma_range`, a gamma from it comes first, as often as the others.
    """

    random = True

    brightness_delta: float = 32
    contrast_range: Sequence[float] = (0.5, 1.5)
    saturation_range: Sequence[float] = (0.5, 1.5)
    hue_delta: int = 18
    gamma_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.gamma_range is not None and min(as_pair(self.gamma_range, "gamma_range")) <= 0:
            raise UserError(f"PhotoMetricDistortion's gamma_range is two numbers above zero, not {self.gamma_range!r}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = as_bytes(image)
        brighten, contrast_first, contrast, saturate, turn_hue = rng.random(5) < 0.5
        offset = rng.uniform(-self.brightness_delta, self.brightness_delta) if brighten else 0.0
        factor = rng.uniform(*as_pair(self.contrast_range, "contrast_range")) if contrast else 1.0
        saturation = rng.uniform(*as_pair(self.saturation_range, "saturation_range")) if saturate else 1.0
        hue = int(rng.integers(-self.hue_delta, self.hue_delta)) if turn_hue and self.hue_delta else 0

        in_hsv = (saturate or turn_hue) and image.shape[2] == 3
        if self.gamma_range is not None and rng.random() < 0.5:
            low, high = np.log(as_pair(self.gamma_range, "gamma_range"))
            image = bend_levels(image, math.exp(rng.uniform(low, high)))
        if brighten:
            image = shift_levels(image, offset)
        if contrast and (contrast_first or not in_hsv):
            image = scale_levels(image, factor)
        if in_hsv:
            image = shift_saturation_and_hue(image, saturation, hue)
        if contrast and in_hsv and not contrast_first:
            image = scale_levels(image, factor)
        return image


@transform
class Normalize(ValueStep):
    """(image - mean) / std as float32; `to_rgb=False` gives BGR, in which order mean and std then are."""

    mean: Sequence[float]
    std: Sequence[float]
    to_rgb: bool = True

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if len(self.mean) not in (1, image.shape[2]) or len(self.std) not in (1, image.shape[2]):
            raise UserError(f"Normalize has {len(self.mean)} means for an image of {image.shape[2]} channels")
        if not self.to_rgb and image.shape[2] == 3:
            image = np.ascontiguousarray(image[..., ::-1])
        inverse = np.asarray(1 / np.asarray(self.std, np.float64), np.float32)
        return (image.astype(np.float32) - np.asarray(self.mean, np.float32)) * inverse


@transform
class AdjustGamma(ValueStep):
    """Gamma correction: 255 * (level / 255) ** (1 / gamma)."""

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise UserError(f"AdjustGamma's gamma is above zero, not {self.gamma}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return bend_levels(as_bytes(image), self.gamma)


@transform
class CLAHE(ValueStep):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of each channel, on a grid of tiles."""

    clip_limit: float = 40.0
    tile_grid_size: Any = (8, 8)

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) for n in as_pair(self.tile_grid_size, "CLAHE's tile_grid_size")):
            raise UserError(f"CLAHE's tile_grid_size is two numbers of tiles, not {self.tile_grid_size!r}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        clahe = cv2.createCLAHE(self.clip_limit, as_pair(self.tile_grid_size, "CLAHE's tile_grid_size"))
        return np.stack([clahe.apply(np.ascontiguousarray(band)) for band in np.moveaxis(as_bytes(image), -1, 0)], -1)


@transform
class Rerange(ValueStep):
    """Stretch the image's range of values to [min_value, max_value], as float32.

    Raises UserError for an image of one value.
    """

    min_value: float = 0
    max_value: float = 255

    def __post_init__(self) -> None:
        if self.min_value >= self.max_value:
            raise UserError(f"Rerange needs min_value below max_value, not {self.min_value} and {self.max_value}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        smallest, largest = float(image.min()), float(image.max())
        if smallest == largest:
            raise UserError(f"Rerange cannot stretch an image of the single value {smallest:g}")
        shares = (image.astype(np.float64) - smallest) / (largest - smallest)
        return (shares * (self.max_value - self.min_value) + self.min_value).astype(np.float32)


@transform
class RGB2Gray(ValueStep):
    """A weighted sum of the channels as float32, in `out_channels` equal channels (as many as before when None).

    The first weight is that of blue, as in MMSegmentation, whose arrays are BGR.
    """

    out_channels: int | None = None
    weights: Sequence[float] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        if self.out_channels is not None and self.out_channels < 1:
            raise UserError(f"RGB2Gray's out_channels is a number of channels, not {self.out_channels}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if len(self.weights) != image.shape[2]:
            raise UserError(f"RGB2Gray has {len(self.weights)} weights for an image of {image.shape[2]} channels")
        grey = image @ np.asarray(self.weights[::-1], np.float32)  # H, W
        return np.repeat(grey[..., None], self.out_channels or image.shape[2], axis=2)
