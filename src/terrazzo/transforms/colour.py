"""Pixel values: brightness, contrast, saturation, hue, contrast equalisation; in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError

LEVELS = np.arange(256, dtype=np.float32)
TRUNCATING = 2**-14 - 0.5  # makes OpenCV's rounding to the nearest whole number the next one below


def clipped(levels: np.ndarray) -> np.ndarray:
    """Return real levels as a table of bytes."""
    return np.clip(levels, 0, 255).astype(np.uint8)


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Return the image as uint8, real numbers clipped. Raises UserError for integers of another scale than 0 to 255."""
    if image.dtype.kind in "iu" and image.dtype != np.uint8:
        raise UserError(
            f"brightness, contrast and colours are changed in 8-bit images, and this one is {image.dtype}: remove "
            "PhotoMetricDistortion, AdjustGamma and CLAHE from the pipeline"
        )
    return image if image.dtype == np.uint8 else clipped(image)


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace every level by its entry in a table of (256,) or, one a channel, (256, C)."""
    if table.ndim == 2:
        table = table[None]
    return cv2.LUT(image, table).reshape(image.shape)


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


def shift_saturation_and_hue(image: np.ndarray, factor: float = 1.0, shift: int = 0) -> np.ndarray:
    """Multiply the saturation and turn the hue of an RGB uint8 image by `shift` steps of two degrees."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    if shift:
        hue = cv2.LUT(hue, ((LEVELS + shift) % 180).astype(np.uint8))
    if factor != 1:
        saturation = scale_levels(saturation, factor)
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB)


def gamma_table(gamma: float) -> np.ndarray:
    """The table of `255 * (level / 255) ** (1 / gamma)`."""
    return ((np.arange(256) / 255.0) ** (1.0 / gamma) * 255).astype(np.uint8)


def equalise_locally(image: np.ndarray, clip_limit: float, tiles: tuple[int, int]) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of each channel."""
    clahe = cv2.createCLAHE(clip_limit, tiles)
    channels = [clahe.apply(np.ascontiguousarray(as_bytes(image)[..., k])) for k in range(image.shape[2])]
    return np.stack(channels, axis=-1)


def stretch(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map the image's range of values to [low, high], as float32. Raises UserError for an image of one value."""
    smallest, largest = float(image.min()), float(image.max())
    if smallest == largest:
        raise UserError(f"Rerange cannot stretch an image of the single value {smallest:g}")
    scaled = (image.astype(np.float64) - smallest) / (largest - smallest) * (high - low) + low
    return scaled.astype(np.float32)


def normalise(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(image - mean) / std for each channel, as float32."""
    inverse = np.asarray(1 / np.asarray(std, np.float64), np.float32)
    return (image.astype(np.float32) - np.asarray(mean, np.float32)) * inverse
