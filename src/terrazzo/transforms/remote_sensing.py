"""Images of many bands, and pairs of images for change detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import image_of
from terrazzo.transforms.decode import decode_image, read_bytes
from terrazzo.transforms.loading import set_image


def read_bands(path: Path | str) -> np.ndarray:
    """All bands of an image as (H, W, C) in the file's order; GeoTIFF by rasterio or tifffile where installed."""
    path = Path(path)
    data = read_bytes(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        if find_spec("rasterio"):
            import rasterio

            with rasterio.open(path) as file:
                return np.moveaxis(file.read(), 0, -1)
        if find_spec("tifffile"):
            return decode_image(data, backend="tifffile", name=str(path))
    try:
        return decode_image(data, "unchanged", name=str(path))
    except UserError as error:
        raise UserError(f"{error}; for GeoTIFF of many bands: pip install 'terrazzo[geo]'") from error


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadSingleRSImageFromFile:
    """Reads all bands of `sample.image_path` (H, W, C)."""

    to_float32: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image_path is None:
            raise UserError("LoadSingleRSImageFromFile needs a sample with an image_path")
        image = read_bands(sample.image_path)
        return set_image(sample, image.astype(np.float32) if self.to_float32 else image)


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadMultipleRSImageFromFile:
    """Reads two images: `sample.image_path`, and `sample.meta["image_path2"]` into the target `image2` (H, W, C)."""

    to_float32: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        second_path = sample.meta.get("image_path2")
        if second_path is None:
            raise UserError(f"LoadMultipleRSImageFromFile needs meta['image_path2'] beside {sample.image_path}")
        sample = LoadSingleRSImageFromFile(self.to_float32)(sample, rng)
        second = read_bands(second_path)
        if second.shape != image_of(sample, self).shape:
            raise UserError(f"{sample.image_path} and {second_path} form a pair but differ in size")
        second = second.astype(np.float32) if self.to_float32 else second
        sample.targets["image2"] = Target(second, interpolation="bilinear", fill=0)
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class ConcatCDInput:
    """Joins the second image to the first along the channels: (H, W, 2 C)."""

    input_keys: Sequence[str] = ("img", "img2")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if "image2" not in sample.targets:
            raise UserError("ConcatCDInput needs two images: put LoadMultipleRSImageFromFile before it in the pipeline")
        second = sample.targets.pop("image2").array
        sample.image = np.concatenate([image_of(sample, self), second], axis=2)
        return sample
