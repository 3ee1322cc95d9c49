"""The interface of what a Segmenter runs, a torch model or another session. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class ImageScores(Protocol):
    """The result for one image at the stored image's size."""

    def labels(self) -> np.ndarray:
        """The class map (H, W)."""

    def probabilities(self) -> np.ndarray:
        """Class probabilities (K, H, W) as float32; one channel becomes background and foreground."""


class Runtime(Protocol):
    """A trained model that is ready to run."""

    classes: list[str]
    palette: list[list[int]]
    device: Any  # such as "cpu" or torch.device("cuda")
    bands: int  # channels of the images
    threshold: float | None  # of a single output channel: foreground is where its sigmoid is above

    def infer(self, images: np.ndarray, placements: Sequence[Placement]) -> Sequence[ImageScores]:
        """The scores of images (N, H, W, C), uint8 RGB in most cases, where their placements put the stored images."""
