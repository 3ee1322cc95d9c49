"""Cutting out a part of the image, and enlarging it by a border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair, ceil_div
from terrazzo.transforms.base import Step, for_each_map, image_of, transform
from terrazzo.transforms.geometry import (
    Box,
    crop,
    pad,
    resize_crop,
)
from terrazzo.transforms.labels import value_counts
from terrazzo.transforms.resize import Resizing, record_resize

TRIES = 10  # for a crop whose largest class is small enough

GLANCE = 8  # every so many pixels are enough to guess the largest class


def is_varied(label: np.ndarray, most: float, ignore_index: int) -> bool:
    """Return True if two classes or more occur in the label and none covers `most` of its counted pixels."""
    if label.dtype == np.uint8 and 0 <= ignore_index < 256 and label.size:
        few = np.bincount(label[::GLANCE, ::GLANCE].ravel(), minlength=256)
        few[ignore_index] = 0
        largest = np.count_nonzero(label == few.argmax().astype(np.uint8))
        counted = label.size - np.count_nonzero(label == ignore_index)
        if largest and (counted - largest) / counted < most:  # so no other class can cover too much
            return bool(largest < counted and largest / counted < most)
    counts = [count for value, count in value_counts(label).items() if value != ignore_index]
    return len(counts) > 1 and max(counts) / sum(counts) < most


@transform
class RandomCrop(Step):
    """Crop a random rectangle of `crop_size` (height, width); an edge that is shorter is kept whole.

    Of `rare_classes`, a part `rare_share` of the crops contains a random pixel of one that the image has. With
    `cat_max_ratio` below one it tries up to ten times for a crop with two classes or more of which none covers more
    than that part.
    """

    random = True
    moves_pixels = True

    crop_size: Any
    cat_max_ratio: float = 1.0
    ignore_index: int = 255
    rare_classes: Sequence[int] = ()
    rare_share: float = 0.5

    def __post_init__(self) -> None:
        if min(as_pair(self.crop_size, "RandomCrop's crop_size")) <= 0:
            raise UserError(f"RandomCrop's crop_size is (height, width) in pixels, not {self.crop_size!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image_of(sample, self)
        label = sample.label
        box = self.draw_box(*sample.size, rng, None if label is None else lambda box: crop(label, box))
        for_each_map(sample, lambda array, *_: crop(array, box))
        return sample

    def draw_box(
        self, height: int, width: int, rng: np.random.Generator, label_in: Callable[[Box], np.ndarray] | None
    ) -> Box:
        """Draw a box for an image of height x width whose label within a box is `label_in(box)`."""
        crop_height, crop_width = as_pair(self.crop_size, "RandomCrop's crop_size")
        crop_height, crop_width = min(crop_height, height), min(crop_width, width)

        def any_box() -> Box:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, top + crop_height, left + crop_width

        if self.rare_classes and label_in is not None and rng.random() < self.rare_share:
            label = label_in((0, 0, height, width))
            present = [value for value in self.rare_classes if (label == value).any()]
            if present:
                found = np.flatnonzero(label == present[int(rng.integers(len(present)))])
                row, column = divmod(int(found[rng.integers(len(found))]), width)
                top = min(max(0, row - int(rng.integers(crop_height))), height - crop_height)
                left = min(max(0, column - int(rng.integers(crop_width))), width - crop_width)
                return top, left, top + crop_height, left + crop_width
        box = any_box()
        if self.cat_max_ratio >= 1 or label_in is None:
            return box
        for _ in range(TRIES):
            if is_varied(label_in(box), self.cat_max_ratio, self.ignore_index):
                break
            box = any_box()
        return box


@dataclass(frozen=True)
class ResizeCrop(Step):
    """A resize and the random crop after it in one step, which resamples the crop only; Compose joins the two."""

    random = True
    moves_pixels = True

    resize: Resizing
    random_crop: RandomCrop

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        before = height, width = image_of(sample, self).shape[:2]
        step = self.resize.drawn(height, width, rng)
        size = step.target_size(height, width, rng)
        label = sample.label
        tried: dict[Box, np.ndarray] = {}  # the label in the last box

        def label_in(box: Box) -> np.ndarray:
            assert label is not None
            tried.clear()
            tried[box] = resize_crop(label, size, box, "nearest")
            return tried[box]

        box = self.random_crop.draw_box(size[1], size[0], rng, None if label is None else label_in)

        def cut(array: np.ndarray, interpolation: str, _: float) -> np.ndarray:
            return tried[box] if array is label and box in tried else resize_crop(array, size, box, interpolation)

        for_each_map(sample, cut, self.resize.interpolation)
        return record_resize(sample, before, size, step)


@transform
class Pad(Step):
    """Fill at the right and the bottom up to `size` (width, height), a multiple of `size_divisor`, or a square.

    `pad_val` is the image's value (one, or one a channel in RGB order), or {"img": ..., "seg": ...}; targets other
    than the label take their own fill. `sample.meta["padding"]` is (left, top, right, bottom) in pixels.
    """

    moves_pixels = True

    size: Any = None
    size_divisor: int | None = None
    pad_to_square: bool = False
    pad_val: Any = field(default_factory=lambda: {"img": 0, "seg": 255})
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        if (self.size is not None) + (self.size_divisor is not None) + bool(self.pad_to_square) == 0:
            raise UserError("Pad needs size=(width, height), size_divisor or pad_to_square")
        if self.padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise UserError(f"padding_mode is constant, edge, reflect or symmetric, not '{self.padding_mode}'")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = image_of(sample, self).shape[:2]
        size = self.padded_size(height, width)
        values = self.pad_val if isinstance(self.pad_val, dict) else {"img": self.pad_val}
        for_each_map(
            sample,
            lambda array, _, fill: pad(array, size, fill, self.padding_mode),
            fill=values.get("img", 0),
            label_fill=values.get("seg", 255),
        )
        left, top, right, bottom = sample.meta.get("padding", (0, 0, 0, 0))
        sample.meta.update(pad_fixed_size=self.size, pad_size_divisor=self.size_divisor)
        sample.meta["padding"] = (left, top, right + sample.size[1] - width, bottom + sample.size[0] - height)
        return sample

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (width, height) for an image of height x width."""
        if self.size is not None:
            width, height = (max(a, b) for a, b in zip(as_pair(self.size, "Pad's size"), (width, height), strict=True))
        if self.pad_to_square:
            width = height = max(height, width)
        if self.size_divisor is not None:
            width, height = (ceil_div(edge, self.size_divisor) * self.size_divisor for edge in (width, height))
        return width, height


@transform
class CenterCrop(Step):
    """Crop the middle of the image, `crop_size` (width, height); `auto_pad` first enlarges an image that is smaller."""

    moves_pixels = True

    crop_size: Any
    auto_pad: bool = False
    pad_cfg: dict[str, Any] = field(default_factory=dict)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        crop_width, crop_height = as_pair(self.crop_size, "CenterCrop's crop_size")
        height, width = image_of(sample, self).shape[:2]
        if self.auto_pad and (crop_width > width or crop_height > height):
            options: dict[str, Any] = {key: value for key, value in self.pad_cfg.items() if key != "type"}
            sample = Pad(size=(crop_width, crop_height), **options)(sample, rng)
            height, width = sample.size
        top = max(0, round((height - crop_height) / 2.0))
        left = max(0, round((width - crop_width) / 2.0))
        box = (top, left, min(top + crop_height, height), min(left + crop_width, width))
        for_each_map(sample, lambda array, *_: crop(array, box))
        return sample


def fuse(transforms: Sequence[Any]) -> list[Any]:
    """Join every resize with the random crop that follows it."""
    fused: list[Any] = []
    for step in transforms:
        if isinstance(step, RandomCrop) and fused and isinstance(fused[-1], Resizing):
            fused[-1] = ResizeCrop(fused[-1], step)
        else:
            fused.append(step)
    return fused
