"""One image with its targets on the way through the transforms, and several of them as a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from terrazzo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Target:
    """A map that belongs to an image: a geometric transform resamples it by `interpolation` and pads it with `fill`."""

    array: np.ndarray  # H, W
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    fill: float = 255


@dataclass
class Sample:
    """An image and its targets; `meta` holds facts of the image: further paths, how it was changed (flip)."""

    image: np.ndarray | None = None  # H, W, C in RGB order; None until loaded
    targets: dict[str, Target] = field(default_factory=dict)  # "label", "edge", "depth", ...
    image_path: Path | None = None
    label_path: Path | None = None
    original_size: tuple[int, int] = (0, 0)  # height, width of the image as stored
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image as it is now."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def pixels(self) -> np.ndarray:
        """The image (H, W, C). Raises UserError where no step of the pipeline has loaded it."""
        if self.image is None:
            raise UserError("the pipeline loads no image: put LoadImageFromFile first")
        return self.image

    @property
    def label(self) -> np.ndarray | None:
        """The class map (H, W), or None."""
        return self.targets["label"].array if "label" in self.targets else None


@dataclass
class Batch:
    """Samples stacked along a first axis; smaller ones are padded on the right and below."""

    image: Tensor  # N, C, H, W as loaded (uint8 for 8-bit images), RGB order
    targets: dict[str, Tensor]  # each N, H, W
    samples: list[Sample]  # the paths, sizes and meta of each; their arrays are dropped
    sizes: list[tuple[int, int]]  # height, width of each sample inside the batch

    def to(self, device: Any) -> Batch:
        """The same batch with its tensors on `device`."""
        targets = {name: target.to(device, non_blocking=True) for name, target in self.targets.items()}
        return Batch(self.image.to(device, non_blocking=True), targets, self.samples, self.sizes)
