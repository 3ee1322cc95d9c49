"""Covering parts of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import Probability, Step, check_range, image_of, transform
from terrazzo.transforms.geometry import Box

TRIES = 10  # for a rectangle that fits into the image


def cover(sample: Sample, boxes: Sequence[Box], fill: Any, label_fill: int | None, rng: np.random.Generator) -> Sample:
    """Paint rectangles of a copy of the image with a value, one a channel, or "random" noise; of the label if asked.

    Noise is of 0 to 255 in 8-bit images, of the image's own range in others. Raises UserError for a value of other
    channels.
    """
    image = image_of(sample, cover).copy()
    if not isinstance(fill, str) and np.size(fill) not in (1, image.shape[2]):
        if len(set(fill)) > 1:
            raise UserError(f"the fill {fill!r} is of {len(fill)} channels and the image has {image.shape[2]}")
        fill = fill[0]
    label = sample.label.copy() if sample.label is not None and label_fill is not None else None
    for top, left, bottom, right in boxes:
        region = image[top:bottom, left:right]
        region[...] = noise(image, region.shape, rng) if isinstance(fill, str) else np.asarray(fill, image.dtype)
        if label is not None:
            label[top:bottom, left:right] = label_fill
    sample.image = image
    if label is not None:
        sample.targets["label"].array = label
    return sample


def noise(image: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return uniform noise over the range of the image's values; from 0 to 255 for 8 bits."""
    if image.dtype == np.uint8:
        return rng.integers(0, 256, shape)
    return rng.uniform(float(np.nanmin(image)), float(np.nanmax(image)), shape)


@transform
class RandomCutOut(Step):
    """With `prob` cover `n_holes` (a number or a range) rectangles (DeVries and Taylor, 2017).

    A hole is `cutout_shape` (width, height) in pixels or `cutout_ratio` of the image's, or drawn from several of
    either; the label is covered too where `seg_fill_in` is given.
    """

    random = True

    prob: Probability
    n_holes: Any
    cutout_shape: Any = None
    cutout_ratio: Any = None
    fill_in: Any = (0, 0, 0)
    seg_fill_in: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.cutout_shape is None) == (self.cutout_ratio is None):
            raise UserError("RandomCutOut needs either cutout_shape=(width, height) or cutout_ratio")
        sizes = self.cutout_shape if self.cutout_ratio is None else self.cutout_ratio
        if not isinstance(sizes, (list, tuple)):
            raise UserError(f"RandomCutOut's holes are (width, height), or several of these, not {sizes!r}")
        if not isinstance(self.n_holes, int):
            check_range(self.n_holes, "RandomCutOut's n_holes")
        if self.seg_fill_in is not None and not (isinstance(self.seg_fill_in, int) and 0 <= self.seg_fill_in <= 255):
            raise UserError(f"RandomCutOut's seg_fill_in is a label of 0 to 255, not {self.seg_fill_in!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        height, width = image_of(sample, self).shape[:2]
        sizes = self.cutout_ratio if self.cutout_shape is None else self.cutout_shape
        sizes = sizes if isinstance(sizes[0], Sequence) else [sizes]
        fewest, most = as_pair(self.n_holes, "RandomCutOut's n_holes")
        boxes = []
        for _ in range(int(rng.integers(fewest, most + 1))):
            left, top = int(rng.integers(width)), int(rng.integers(height))
            wide, high = sizes[int(rng.integers(len(sizes)))]
            if self.cutout_shape is None:
                wide, high = int(wide * width), int(high * height)
            boxes.append((top, left, min(top + high, height), min(left + wide, width)))
        return cover(sample, boxes, self.fill_in, self.seg_fill_in, rng)


@transform
class RandomErasing(Step):
    """With `prob` cover one rectangle of random area and aspect with noise or a value (Zhong et al., AAAI 2020)."""

    random = True

    prob: Probability = 0.5
    area_ratio: Sequence[float] = (0.02, 0.4)
    aspect_ratio: Sequence[float] = (0.3, 1 / 0.3)
    fill: Any = "random"
    seg_fill: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.fill, str) and self.fill != "random":
            raise UserError(f"RandomErasing's fill is 'random' or a value, not '{self.fill}'")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        height, width = image_of(sample, self).shape[:2]
        for _ in range(TRIES):
            area = rng.uniform(*as_pair(self.area_ratio, "area_ratio")) * height * width
            aspect = np.exp(rng.uniform(*np.log(as_pair(self.aspect_ratio, "aspect_ratio"))))
            high, wide = max(1, round((area * aspect) ** 0.5)), max(1, round((area / aspect) ** 0.5))
            if high <= height and wide <= width:
                top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
                return cover(sample, [(top, left, top + high, left + wide)], self.fill, self.seg_fill, rng)
        return sample


@transform
class RandomDepthMix(Step):
    """With `prob` replace a vertical strip of the image by its depth (Ishii and Yamashita, CutDepth, 2021).

    The strip starts anywhere and spans up to `mix_scale_ratio` of the width to the right of its start.
    """

    needs = "depth"
    random = True

    prob: Probability = 0.25
    mix_scale_ratio: float = 0.75

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        if "depth" not in sample.targets:
            raise UserError("RandomDepthMix needs depth: put LoadDepthAnnotation before it in the pipeline")
        image = image_of(sample, self).copy()
        width = image.shape[1]
        left = int(width * rng.random())
        span = max(int((width - left) * rng.random() * self.mix_scale_ratio), 1)
        depth = sample.targets["depth"].array[:, left : left + span, None]
        image[:, left : left + span] = np.clip(depth, 0, 255) if image.dtype == np.uint8 else depth
        sample.image = image
        return sample
