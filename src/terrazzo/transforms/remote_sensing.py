"""Images of many bands, and pairs of images for change detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import Step, image_of
from terrazzo.transforms.loading import FileReader, LoadImageFromFile
from terrazzo.transforms.reading import StoredFiles
from terrazzo.transforms.stored import read_stored


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadSingleRSImageFromFile(LoadImageFromFile):
    """Read all bands of `sample.image_path` (H, W, C)."""

    to_float32: bool = True
    bands: Sequence[int] | str | None = "all"


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadMultipleRSImageFromFile(FileReader):
    """Read two images: `sample.image_path`, and `sample.meta["image_path2"]` into the target `image2` (H, W, C)."""

    reads = ("image", "image2")

    to_float32: bool = True

    def load(self, sample: Sample, files: StoredFiles) -> Sample:
        second_path = sample.meta.get("image_path2")
        if second_path is None:
            raise UserError(f"LoadMultipleRSImageFromFile needs meta['image_path2'] beside {sample.image_path}")
        sample = LoadSingleRSImageFromFile(self.to_float32).load(sample, files)
        second = read_stored(second_path)
        if second.shape != image_of(sample, self).shape:
            raise UserError(f"{sample.image_path} and {second_path} form a pair but differ in size")
        second = second.astype(np.float32) if self.to_float32 else second
        sample.targets["image2"] = Target(second, interpolation="bilinear", fill=0)
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class ConcatCDInput(Step):
    """Join the second image to the first along the channels: (H, W, 2 C)."""

    needs = "image2"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if "image2" not in sample.targets:
            raise UserError("ConcatCDInput needs two images: put LoadMultipleRSImageFromFile before it in the pipeline")
        second = sample.targets.pop("image2").array
        sample.image = np.concatenate([image_of(sample, self), second], axis=2)
        return sample
