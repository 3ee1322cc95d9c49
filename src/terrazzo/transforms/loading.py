"""Images, labels and depth maps from files into the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms.cached import read_through
from terrazzo.transforms.decode import map_label, read_image, read_label
from terrazzo.transforms.formats.base import make_label_format
from terrazzo.transforms.stored import read_stored


def check_local(backend_args: dict[str, Any] | None) -> None:
    """Raise UserError for a storage backend other than the file system."""
    backend = (backend_args or {}).get("backend", "local")
    if backend not in ("local", "disk"):
        raise UserError(
            f"backend_args asks for '{backend}', but files are read from the file system: mount or copy them"
        )


def are_bands(value: Any) -> bool:
    """Whether a value is a list of band numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and all(type(band) is int and band > 0 for band in value)


def set_image(sample: Sample, image: np.ndarray) -> Sample:
    """Put a freshly loaded image (H, W, C) into the sample."""
    sample.image = image
    sample.original_size = (image.shape[0], image.shape[1])
    return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadImageFromFile:
    """Reads `sample.image_path`: RGB uint8, or float32 with `to_float32`. Raises UserError naming a damaged file.

    `bands`, numbered from 1, or "all", are read as they are stored instead: of 8 or 16 bits or real numbers.
    """

    to_float32: bool = False
    color_type: str = "color"
    imdecode_backend: str = "cv2"
    bands: Sequence[int] | str | None = None
    backend_args: dict[str, Any] | None = None
    file_client_args: dict[str, Any] | None = None  # the older name of backend_args

    def __post_init__(self) -> None:
        check_local(self.backend_args or self.file_client_args)
        if self.bands not in (None, "all") and not are_bands(self.bands):
            raise UserError(f"LoadImageFromFile: bands must be numbers from 1, such as [3, 2, 1], not {self.bands!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image_path is None:
            raise UserError("LoadImageFromFile needs a sample with an image_path")
        sample.meta["loader"] = self
        path = sample.image_path
        return set_image(sample, read_through(sample, path, repr(self), lambda: self.read(path)))

    def read(self, path: Path | str) -> np.ndarray:
        """The image (H, W, C) that a sample of this path would have."""
        if self.bands is not None:
            image = read_stored(path, None if isinstance(self.bands, str) else self.bands)
        else:
            image = read_image(path, self.color_type, self.imdecode_backend)
        return image.astype(np.float32) if self.to_float32 else image


@TRANSFORMS.register(aliases=("LoadImageFromNDArray",))
@dataclass(frozen=True)
class InferencerLoader:
    """Keeps an image that the caller has put into the sample, else reads `sample.image_path`."""

    to_float32: bool = False
    color_type: str = "color"
    imdecode_backend: str = "cv2"
    bands: Sequence[int] | str | None = None
    backend_args: dict[str, Any] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image is None:
            loader = LoadImageFromFile(
                self.to_float32, self.color_type, self.imdecode_backend, self.bands, self.backend_args
            )
            return loader(sample, rng)
        image = sample.image if sample.image.ndim == 3 else np.repeat(sample.image[..., None], 3, axis=2)
        return set_image(sample, image.astype(np.float32) if self.to_float32 else image)


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadAnnotations:
    """Reads `sample.label_path` into the target `label` (H, W), class indices with 255 for ignored pixels.

    What is None here comes from the dataset through `sample.meta`: `reduce_zero_label`, `label_map`, and `ignore`
    (stored values that do not count). `label_format` names the form of files that hold no class indices, see
    `terrazzo.transforms.formats`. Raises UserError for a label of another size than the image's.
    """

    reduce_zero_label: bool | None = None
    label_map: dict[int, int] | None = None
    label_format: Any = None
    keeps_specs = ("label_format",)
    imdecode_backend: str = "pillow"
    backend_args: dict[str, Any] | None = None
    file_client_args: dict[str, Any] | None = None  # the older name of backend_args

    def __post_init__(self) -> None:
        check_local(self.backend_args or self.file_client_args)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.label_path is None:
            raise UserError(f"LoadAnnotations needs a label_path; the sample of {sample.image_path} has none")
        if sample.meta.get("label_format") is None and self.label_format is None:
            values = [repr(value) for value in (self.imdecode_backend, *self.mapping(sample))]
            label = read_through(sample, sample.label_path, f"label {values}", lambda: self.mapped(sample))
        else:
            label = self.mapped(sample)
        check_same_size(label, sample, sample.label_path)
        sample.targets["label"] = Target(label)
        return sample

    def mapping(self, sample: Sample) -> tuple[bool, dict[int, int] | None, Sequence[int]]:
        """`reduce_zero_label`, `label_map` and `ignore` for a sample."""
        reduce = sample.meta.get("reduce_zero_label") if self.reduce_zero_label is None else self.reduce_zero_label
        label_map = sample.meta.get("label_map") if self.label_map is None else self.label_map
        return bool(reduce), label_map, sample.meta.get("ignore") or ()

    def mapped(self, sample: Sample) -> np.ndarray:
        """The label as training classes."""
        return map_label(self.read(sample), *self.mapping(sample))

    def read(self, sample: Sample) -> np.ndarray:
        """The label's stored values, or classes where a label format gives them."""
        assert sample.label_path is not None
        reader = sample.meta.get("label_format")
        if reader is None and self.label_format is not None:
            reader = make_label_format(self.label_format, sample.label_path.parent)
        if reader is None:
            return read_label(sample.label_path, self.imdecode_backend)
        return reader.read(sample.label_path, sample.image_path, sample.original_size)


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadDepthAnnotation:
    """Reads the file `sample.meta["depth_path"]` into the target `depth` (H, W), times `depth_rescale_factor`."""

    decode_backend: str = "cv2"
    to_float32: bool = True
    depth_rescale_factor: float = 1.0
    backend_args: dict[str, Any] | None = None
    file_client_args: dict[str, Any] | None = None  # the older name of backend_args

    def __post_init__(self) -> None:
        check_local(self.backend_args or self.file_client_args)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        path = sample.meta.get("depth_path")
        if path is None:
            raise UserError(f"LoadDepthAnnotation needs meta['depth_path']; the sample of {sample.image_path} has none")
        if self.decode_backend == "numpy" or Path(path).suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
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
