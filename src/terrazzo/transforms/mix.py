"""Transforms that mix several samples.

MultiImageMixDataset calls `get_indices(length, rng)`, loads those samples and passes them as `partners`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import Probability, Step, copy_sample, for_each_map, image_of, transform
from terrazzo.transforms.geometry import crop, pad, resize, scaled_length


class Mixing(Step):
    """A transform that needs `count` other samples of the data set, its partners."""

    random = True
    moves_pixels = True
    count = 1

    def get_indices(self, length: int, rng: np.random.Generator) -> list[int]:
        """Return the indices of the partners it wants from a data set of `length`."""
        return [int(index) for index in rng.integers(length, size=self.count)]

    def copies(self, partners: Sequence[Sample]) -> list[Sample]:
        """Return copies of the partners. Raises UserError where there are fewer than `get_indices` asked for."""
        if len(partners) < self.count:
            raise UserError(f"{type(self).__name__} mixes several images: wrap the dataset in MultiImageMixDataset")
        return [copy_sample(partner) for partner in partners]

    def __call__(self, sample: Sample, rng: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        raise NotImplementedError


@transform
class RandomMosaic(Mixing):
    """With `prob` set four images around a random point (Bochkovskiy et al., YOLOv4, 2020).

    Each is fitted into `img_scale` (height, width); the mosaic is twice as high and wide, its point drawn from
    `center_ratio_range` times `img_scale`.
    """

    prob: Probability
    img_scale: Any = (640, 640)
    center_ratio_range: Sequence[float] = (0.5, 1.5)
    pad_val: float = 0
    seg_pad_val: float = 255

    count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.img_scale, (list, tuple)):
            raise UserError(f"RandomMosaic's img_scale is (height, width), not {self.img_scale!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        others = self.copies(partners)
        if rng.random() >= self.prob:
            return sample
        height, width = as_pair(self.img_scale, "RandomMosaic's img_scale")
        low, high = as_pair(self.center_ratio_range, "RandomMosaic's center_ratio_range")
        center = (int(rng.uniform(low, high) * height), int(rng.uniform(low, high) * width))
        quarters = [self._quarter(part, k, center) for k, part in enumerate([sample, *others[:3]])]

        def joined(maps: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([np.concatenate(maps[:2], axis=1), np.concatenate(maps[2:], axis=1)])

        sample.image = joined([image_of(quarter, self) for quarter in quarters])
        for name, target in sample.targets.items():
            target.array = joined([quarter.targets[name].array for quarter in quarters])
        return sample

    def _quarter(self, sample: Sample, corner: int, center: tuple[int, int]) -> Sample:
        """Return the sample cut or padded to its corner (top left, top right, bottom left, bottom right)."""
        height, width = as_pair(self.img_scale, "RandomMosaic's img_scale")
        factor = min(height / sample.size[0], width / sample.size[1])
        size = (scaled_length(sample.size[1], factor), scaled_length(sample.size[0], factor))
        at_bottom, at_right = divmod(corner, 2)
        room = (2 * height - center[0] if at_bottom else center[0], 2 * width - center[1] if at_right else center[1])

        def place_map(array: np.ndarray, interpolation: str, fill: float) -> np.ndarray:
            array = resize(array, size, interpolation)
            kept_height, kept_width = min(room[0], size[1]), min(room[1], size[0])
            top, left = (0 if at_bottom else size[1] - kept_height), (0 if at_right else size[0] - kept_width)
            array = crop(array, (top, left, top + kept_height, left + kept_width))
            offset = (0 if at_right else room[1] - kept_width, 0 if at_bottom else room[0] - kept_height)
            return pad(array, (room[1], room[0]), fill, offset=offset)

        quarter = copy_sample(sample)
        for_each_map(quarter, place_map, fill=self.pad_val, label_fill=self.seg_pad_val)
        return quarter


@dataclass(frozen=True)
class _Pasting(Mixing):
    """With `prob` paste some pixels of another image, at this one's size, with their labels."""

    prob: Probability = 0.5
    ignore_index: int = 255

    def mask(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return True for the pixels to paste of an image with this label."""
        raise NotImplementedError

    def classes_in(self, label: np.ndarray) -> np.ndarray:
        return np.setdiff1d(label, [self.ignore_index])

    def __call__(self, sample: Sample, rng: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        other = self.copies(partners)[0]
        if rng.random() >= self.prob:
            return sample
        size = (sample.size[1], sample.size[0])
        for_each_map(other, lambda array, interpolation, _: resize(array, size, interpolation))
        if other.label is None or sample.label is None:
            raise UserError(f"{type(self).__name__} needs labels: put LoadAnnotations before it in the pipeline")
        mask = self.mask(other.label, rng)  # H, W
        sample.image = image_of(sample, self).copy()
        sample.image[mask] = image_of(other, self)[mask]
        for name, target in sample.targets.items():
            target.array = target.array.copy()
            target.array[mask] = other.targets[name].array[mask]
        return sample


@transform
class ClassMix(_Pasting):
    """With `prob` paste half of the classes of another image, at random (Olsson et al., WACV 2021)."""

    def mask(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        classes = self.classes_in(label)
        return np.isin(label, rng.permutation(classes)[: (len(classes) + 1) // 2])


@transform
class CopyPaste(_Pasting):
    """With `prob` paste up to `max_objects` connected regions of another image (Ghiasi et al., CVPR 2021).

    Regions are of the classes `classes` (all when None) and of `min_area` pixels or more.
    """

    classes: Sequence[int] | None = None
    max_objects: int = 5
    min_area: int = 64

    def mask(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        wanted = self.classes_in(label) if self.classes is None else self.classes
        regions = [region for index in wanted for region in self._regions(label == index)]
        mask = np.zeros(label.shape, bool)
        if regions:
            count = int(rng.integers(1, min(self.max_objects, len(regions)) + 1))
            for index in rng.choice(len(regions), count, replace=False):
                mask |= regions[int(index)]
        return mask

    def _regions(self, mask: np.ndarray) -> list[np.ndarray]:
        count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        return [numbers == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= self.min_area]
