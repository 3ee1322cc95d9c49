"""Images, pairs of images, labels and depth maps from files into the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import Step, image_of, transform
from terrazzo.transforms.decode import KEPT, read_image, read_stored, select
from terrazzo.transforms.formats.base import make_label_format
from terrazzo.transforms.label_files import read_label
from terrazzo.transforms.labels import IGNORED, LabelMapping
from terrazzo.transforms.opening import load_numpy
from terrazzo.transforms.reading import FileReader, bind
from terrazzo.transforms.resampling import read_resampled


@transform
class LoadImageFromFile(FileReader):
    """Read `sample.image_path` as RGB uint8, or float32 with `to_float32`. Raises UserError naming a damaged file.

    `bands`, numbered from 1, or "all", are read as they are stored instead: of 8 or 16 bits or real numbers. With a
    `resolution`, in metres a pixel, they are those of GeoTIFF files, which are resampled to it. `microns` a pixel are
    those at which whole-slide images are read.
    """

    reads = "image"

    to_float32: bool = False
    color_type: str = "color"
    imdecode_backend: str = "cv2"
    bands: Sequence[int] | str | None = None
    resolution: float | None = None
    microns: float | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and (self.bands is None or not self.resolution > 0):
            raise UserError("LoadImageFromFile: resolution is a number of metres above 0, and goes with `bands`")
        if self.bands not in (None, "all") and not are_bands(self.bands):
            raise UserError(f"LoadImageFromFile: bands must be numbers from 1, such as [3, 2, 1], not {self.bands!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        path = sample.image_path
        if path is None:
            raise UserError(f"{type(self).__name__} needs a sample with an image_path")
        return self.set_image(sample, self.files.read_through(path, repr(self), lambda: self.read(path)))

    def set_image(self, sample: Sample, image: np.ndarray) -> Sample:
        sample.image = image
        sample.original_size = (image.shape[0], image.shape[1])
        return sample

    def read(self, path: Path | str) -> np.ndarray:
        """Return the image (H, W, C) that a sample of this path would have."""
        if self.files.scenes is not None:
            image = self.files.scenes.image(Path(path))
        elif self.bands is not None:
            bands = None if isinstance(self.bands, str) else self.bands
            image = read_stored(path, bands) if self.resolution is None else self.read_at_resolution(path, bands)
        else:
            image = read_image(path, self.color_type, self.imdecode_backend)
        return image.astype(np.float32) if self.to_float32 else image

    def read_at_resolution(self, path: Path | str, bands: Sequence[int] | None) -> np.ndarray:
        assert self.resolution is not None
        image = read_resampled(path, self.resolution)
        image = image if str(image.dtype) in KEPT else image.astype(np.float32)
        return image if bands is None else select(image, bands, Path(path))


def are_bands(value: Any) -> bool:
    """Return True for a list of band numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and all(type(band) is int and band > 0 for band in value)


@transform(aliases=("LoadImageFromNDArray",))
class InferencerLoader(LoadImageFromFile):
    """Keep an image that the caller has put into the sample, else read `sample.image_path`."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image is None:
            return super().__call__(sample, rng)
        image = sample.image if sample.image.ndim == 3 else np.repeat(sample.image[..., None], 3, axis=2)
        return self.set_image(sample, image.astype(np.float32) if self.to_float32 else image)


@transform
class LoadAnnotations(FileReader):
    """Read `sample.label_path` into the target `label` (H, W), class indices with 255 for ignored pixels.

    `reduce_zero_label` and `label_map` replace those of the data set. `label_format` names the form of files that do
    not hold class indices, see `terrazzo.transforms.formats`; GeoTIFF labels are resampled to `resolution` metres a
    pixel. Every pixel of an image that is said to have no label is ignored. Raises UserError for a label of another
    size than the image's.
    """

    reads = "label"

    reduce_zero_label: bool | None = None
    label_map: dict[int, int] | None = None
    label_format: Any = None
    keeps_specs = ("label_format",)
    imdecode_backend: str = "pillow"
    resolution: float | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        path, files, mapping = sample.label_path, self.files, self.mapping
        if path is None and sample.meta.get("has_no_label"):
            sample.targets["label"] = Target(np.full(image_of(sample, self).shape[:2], IGNORED, np.uint8))
            return sample
        if path is None:
            raise UserError(f"LoadAnnotations needs a label_path; the sample of {sample.image_path} has none")

        def read() -> np.ndarray:
            if files.scenes is None or sample.image_path is None:
                return mapping.apply(self.read(sample))
            stored, counts = files.scenes.label(sample.image_path)
            return np.where(counts, mapping.apply(stored), IGNORED).astype(stored.dtype)

        is_indices = files.label_format is None and self.label_format is None  # only these go through the cache
        variant = f"label {self.imdecode_backend} {self.resolution} {mapping}"
        label = files.read_through(path, variant, read) if is_indices else read()
        check_same_size(label, sample, path)
        sample.targets["label"] = Target(label)
        return sample

    @property
    def mapping(self) -> LabelMapping:
        """The mapping of the data set, with the values that are set here instead."""
        own: dict[str, Any] = {"reduce_zero_label": self.reduce_zero_label, "label_map": self.label_map}
        return replace(self.files.mapping, **{name: value for name, value in own.items() if value is not None})

    def read(self, sample: Sample) -> np.ndarray:
        """Return the label's stored values, or classes where a label format gives them."""
        assert sample.label_path is not None
        reader = self.files.label_format
        if reader is None and self.label_format is not None:
            reader = make_label_format(self.label_format, sample.label_path.parent)
        if reader is None:
            if self.resolution is not None:
                return read_resampled(sample.label_path, self.resolution, nearest=True)[..., 0]
            return read_label(sample.label_path, self.imdecode_backend)
        return reader.read(sample.label_path, sample.image_path, sample.original_size)


@transform
class LoadDepthAnnotation(Step):
    """Read the file `sample.meta["depth_path"]` into the target `depth` (H, W), times `depth_rescale_factor`."""

    reads = "depth"

    decode_backend: str = "cv2"
    to_float32: bool = True
    depth_rescale_factor: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        path = sample.meta.get("depth_path")
        if path is None:
            raise UserError(f"LoadDepthAnnotation needs meta['depth_path']; the sample of {sample.image_path} has none")
        if self.decode_backend == "numpy" or Path(path).suffix == ".npy":
            depth = load_numpy(path)
        else:
            depth = read_image(path, "unchanged", self.decode_backend)[..., 0]
        check_same_size(depth, sample, path)
        depth = depth * np.float32(self.depth_rescale_factor)
        sample.targets["depth"] = Target(depth if self.to_float32 else depth.astype(np.float64), fill=0)
        return sample


def check_same_size(array: np.ndarray, sample: Sample, path: Path | str) -> None:
    """Raise UserError where a map read from `path` does not cover the image as stored."""
    if sum(sample.original_size) and array.shape[:2] != tuple(sample.original_size):
        sizes = [f"{width}x{height}" for height, width in (array.shape[:2], sample.original_size)]
        raise UserError(f"{path} is {sizes[0]} but its image {sample.image_path} is {sizes[1]} (width x height)")


@transform
class LoadSingleRSImageFromFile(LoadImageFromFile):
    """Read all bands of `sample.image_path` (H, W, C)."""

    to_float32: bool = True
    bands: Sequence[int] | str | None = "all"


@transform
class LoadMultipleRSImageFromFile(FileReader):
    """Read two images: `sample.image_path`, and `sample.meta["image_path2"]` into the target `image2` (H, W, C)."""

    reads = ("image", "image2")

    to_float32: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        second_path = sample.meta.get("image_path2")
        if second_path is None:
            raise UserError(f"LoadMultipleRSImageFromFile needs meta['image_path2'] beside {sample.image_path}")
        sample = bind(LoadSingleRSImageFromFile(self.to_float32), self.files)(sample, rng)
        second = read_stored(second_path)
        if second.shape != image_of(sample, self).shape:
            raise UserError(f"{sample.image_path} and {second_path} form a pair but differ in size")
        second = second.astype(np.float32) if self.to_float32 else second
        sample.targets["image2"] = Target(second, interpolation="bilinear", fill=0)
        return sample


@transform
class ConcatCDInput(Step):
    """Join the second image to the first along the channels: (H, W, 2 C)."""

    needs = "image2"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if "image2" not in sample.targets:
            raise UserError("ConcatCDInput needs two images: put LoadMultipleRSImageFromFile before it in the pipeline")
        second = sample.targets.pop("image2").array
        sample.image = np.concatenate([image_of(sample, self), second], axis=2)
        return sample
