"""The interface of what a Segmenter runs, a torch model or another session. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from terrazzo.sample import Sample

DEFAULT_THRESHOLD = 0.3  # of a single foreground score


@dataclass(frozen=True)
class Placement:
    """The position of a stored image in a network's input, in pixels.

    The input's `window` (top, left, bottom, right), after undoing `flip` ("horizontal", "vertical" or "diagonal"), is
    the stored image of `size` (height, width) resized.
    """

    size: tuple[int, int]
    window: tuple[int, int, int, int]
    flip: str | None = None

    @classmethod
    def of(cls, sample: Sample, size: Sequence[int]) -> Placement:
        """The placement of a sample whose transformed image, without what a batch adds, is of `size`."""
        left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
        return cls(
            size=(sample.original_size[0], sample.original_size[1]),
            window=(top, left, size[0] - bottom, size[1] - right),
            flip=sample.meta.get("flip_direction", "horizontal") if sample.meta.get("flip") else None,
        )


@dataclass(frozen=True)
class Memory:
    """The memory that the prediction of one image may take, and the windows that a user asks for where it is cut."""

    limit: int = 2 << 30  # bytes
    window: tuple[int, int] | None = None  # height, width
    overlap: float | None = None  # the share of a window that neighbours have in common


class ImageScores(Protocol):
    """The result for one image at the stored image's size."""

    @property
    def logits(self) -> np.ndarray:
        """The logits (K, H, W), float32."""

    def labels(self) -> np.ndarray:
        """The class map (H, W)."""

    def probabilities(self) -> np.ndarray:
        """Class probabilities (K, H, W) as float32; one channel becomes background and foreground."""


class OwnWindows(NamedTuple):
    """The windows that a model was made for."""

    size: tuple[int, int] | None = None  # height and width: of its test_cfg, or of its training images
    overlap: float | None = None  # the share of a window that neighbours have in common, in its test_cfg
    is_fixed: bool = False  # it takes no other size


class Runtime(Protocol):
    """A trained model that is ready to run."""

    classes: list[str]
    palette: list[list[int]]
    device: Any  # such as "cpu" or torch.device("cuda")
    bands: int  # channels of the images
    threshold: float | None  # of a single output channel: foreground is where its sigmoid is above

    def infer(self, images: np.ndarray, placements: Sequence[Placement]) -> Sequence[ImageScores]:
        """The scores of images (N, H, W, C), uint8 RGB in most cases, where their placements put the stored images."""

    @property
    def windows(self) -> OwnWindows:
        """The windows that it was made for."""

    @property
    def bytes_per_pixel(self) -> float:
        """The memory that one pass takes, roughly."""

    @property
    def spread(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the bands of training images."""

    def fingerprint(self) -> str:
        """A text that differs for models that differ."""


def spread_of(normalisation: Sequence[list[float] | None], bands: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each of the bands, by what a model subtracts and divides by; of 8-bit images if nothing."""
    mean, std = ((values or [typical])[:bands] for values, typical in zip(normalisation, (127.5, 60.0), strict=True))
    return (mean * bands)[:bands], (std * bands)[:bands]
