"""Fingerprints of training images, and how unlike them others are. This module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

MOST_IMAGES = 32  # of a data set that are looked at
PIXELS = 4096  # of an image that are looked at
BINS = 16
USUAL = 0.95  # share of the training images whose distance is 1 or less
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEAST = {"colours": 0.01, "size": 0.25, "confidence": 0.02}  # distances that count as 1 where training images agree


@dataclass(frozen=True)
class Fingerprint:
    """The size and the colours of training images, and the confidence on validation images.

    Sizes are the root of an image's area, colours the histogram of each band between its `ranges`.
    """

    images: int
    ranges: list[list[float]]
    histograms: list[list[float]]  # of each band, the mean over the images
    sizes: list[float]  # QUANTILES of pixels
    colour_distance: float  # from the mean, of the share USUAL of the images
    size_distance: float  # from the median, in octaves
    confidence: list[float] = field(default_factory=list)  # QUANTILES of the images' means; empty if unknown

    def unlike(self, image: np.ndarray, confidence: float | None = None) -> dict[str, float]:
        """Distances of an image (H, W, C) from the training images; 95% of those have 1 or less."""
        found = {
            "colours": distance(self.histograms, histograms(sampled(image), self.ranges))
            / max(self.colour_distance, LEAST["colours"]),
            "size": abs(np.log2(side(image.shape) / self.sizes[2])) / max(self.size_distance, LEAST["size"]),
        }
        if confidence is not None and self.confidence:
            below = self.confidence[2] - confidence
            found["confidence"] = max(0.0, below) / max(self.confidence[2] - self.confidence[0], LEAST["confidence"])
        return {name: round(float(value), 3) for name, value in found.items()}

    def with_confidence(self, confidences: Sequence[float]) -> Fingerprint:
        """The same with the quantiles of validation images' mean confidences."""
        quantiles = np.quantile(confidences, QUANTILES).round(4).tolist() if len(confidences) else []
        return replace(self, confidence=quantiles)

    def values(self) -> dict[str, Any]:
        """The fingerprint as JSON stores it."""
        return asdict(self)

    @classmethod
    def read(cls, values: Any) -> Fingerprint | None:
        """The fingerprint in a file's metadata; None for one that is missing or damaged."""
        if not isinstance(values, Mapping):
            return None
        try:
            found = cls(**values)
            bands = np.asarray(found.histograms, np.float64)
            shapes = bands.shape[1:] == (BINS,) and np.shape(found.ranges) == (len(bands), 2) and len(bands) > 0
            numbers = np.asarray([*found.sizes, found.colour_distance, found.size_distance, *found.confidence], float)
            is_sound = shapes and len(found.sizes) == len(QUANTILES) and len(found.confidence) in (0, len(QUANTILES))
            return found if is_sound and np.isfinite(numbers).all() and found.sizes[2] > 0 else None
        except (TypeError, ValueError):
            return None


def fingerprint(images: Iterable[np.ndarray]) -> Fingerprint | None:
    """The fingerprint of images (H, W, C) of the same bands; None of none."""
    samples: list[np.ndarray] = []
    sides: list[float] = []
    bands, is_8_bit = 0, True
    for image in images:
        if not samples:
            bands = image.shape[2]
        if image.shape[2] == bands:
            samples.append(sampled(image))
            sides.append(side(image.shape))
            is_8_bit &= image.dtype == np.uint8
    if not samples or not bands:
        return None
    together = np.concatenate(samples)
    ranges = [[0.0, 255.0]] * bands
    if not is_8_bit:
        low, high = np.nanpercentile(together, (1, 99), axis=0) if len(together) else (np.zeros(bands), np.ones(bands))
        ranges = [[float(a), float(max(b, a + 1e-6))] for a, b in zip(low, high, strict=True)]
    each = [histograms(sample, ranges) for sample in samples]
    mean = np.mean(each, axis=0)
    octaves = np.abs(np.log2(np.array(sides) / np.median(sides)))
    return Fingerprint(
        images=len(samples),
        ranges=ranges,
        histograms=mean.round(5).tolist(),
        sizes=np.quantile(sides, QUANTILES).round(1).tolist(),
        colour_distance=round(float(np.quantile([distance(mean, one) for one in each], USUAL)), 5),
        size_distance=round(float(np.quantile(octaves, USUAL)), 4),
    )


def side(shape: Sequence[int]) -> float:
    """The side of a square of an image's area."""
    return float(shape[0] * shape[1]) ** 0.5


def sampled(image: np.ndarray) -> np.ndarray:
    """Pixels (n, C) of an image (H, W, C), evenly spread; those without data are left out."""
    step = max(1, int((image.shape[0] * image.shape[1] / PIXELS) ** 0.5))
    pixels = image[::step, ::step].reshape(-1, image.shape[2]).astype(np.float32)
    return pixels[np.isfinite(pixels).all(1)]


def histograms(pixels: np.ndarray, ranges: Sequence[Sequence[float]]) -> np.ndarray:
    """The shares (C, BINS) of pixels (n, C) in each bin of each band; beyond a range they are in its last bins."""
    found = np.zeros((len(ranges), BINS))
    for band, (low, high) in enumerate(ranges[: pixels.shape[1]]):
        place = np.clip((pixels[:, band] - low) / (high - low) * BINS, 0, BINS - 1).astype(int)
        found[band] = np.bincount(place, minlength=BINS) / max(1, len(place))
    return found


def distance(first: Any, second: Any) -> float:
    """The mean over the bands of the earth mover's distance of two histograms (C, BINS), in shares of the range."""
    moved = np.abs(np.cumsum(np.asarray(first) - np.asarray(second), axis=1)).sum(1) / BINS
    return float(moved.mean())


def evenly(count: int, most: int = MOST_IMAGES) -> list[int]:
    """At most `most` of `count` indices, evenly spread."""
    return sorted({index * count // min(count, most) for index in range(min(count, most))})
