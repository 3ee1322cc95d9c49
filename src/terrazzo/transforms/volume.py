"""Volumes (CT, MRI) from files, and their augmentation: images (C, Z, Y, X) with labels (Z, Y, X)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError, first_line
from terrazzo.sample import Sample, Target
from terrazzo.system.arithmetic import as_pair
from terrazzo.transforms.base import Probability, Step, check_range, for_each_map, image_of, transform
from terrazzo.transforms.flip import swap_classes
from terrazzo.transforms.opening import damaged, load_numpy
from terrazzo.transforms.photometric import ValueStep
from terrazzo.transforms.planes import open_nifti
from terrazzo.transforms.reading import FileReader


def read_volume(path: Path | str | None, backend: str, to_xyz: bool = False) -> np.ndarray:
    """Read a volume as (C, Z, Y, X), or (C, X, Y, Z) with `to_xyz`; `nifti` needs nibabel, `numpy` reads .npy."""
    if path is None:
        raise UserError("a volume is to be loaded from a sample without a path")
    if not Path(path).exists():
        raise UserError(f"cannot read {path}: no such file")
    try:
        if backend == "numpy":
            volume = load_numpy(path)
        elif backend == "nifti":
            volume = read_nifti(path)
        else:
            raise UserError(
                f"decode_backend is nifti or numpy, not '{backend}'; .pkl files are not opened: save as .npy"
            )
    except UserError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot decode {path} as {backend} ({error}); decode_backend is nifti or numpy") from error
    if volume.ndim == 3:
        volume = volume[None]
    elif backend == "nifti":
        volume = np.moveaxis(volume, -1, 0)  # modalities come last in NIfTI
    if backend == "nifti":
        volume = volume.transpose(0, 3, 2, 1)
    return volume.transpose(0, 3, 2, 1) if to_xyz else volume


def read_nifti(path: Path | str) -> np.ndarray:
    """Read the values (X, Y, Z [, C]) of a NIfTI file in their own scale. Raises UserError for another file."""
    volume = open_nifti(Path(path))
    try:
        values = np.asarray(volume.get_fdata())
    except MemoryError:
        raise
    except Exception as problem:  # of a broken file, of several classes
        raise damaged(str(path), first_line(problem)) from None
    return values[..., None] if values.ndim == 2 else values


def set_volume(sample: Sample, volume: np.ndarray) -> Sample:
    """Put a volume into the sample; `sample.meta["layout"]` records that channels come first."""
    sample.image = volume
    sample.original_size = (volume.shape[-2], volume.shape[-1])
    sample.meta["layout"] = "CZYX"
    return sample


@transform
class LoadBiomedicalImageFromFile(Step):
    """Read `sample.image_path` as a volume (C, Z, Y, X)."""

    reads = "image"

    decode_backend: str = "nifti"
    to_xyz: bool = False
    to_float32: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = read_volume(sample.image_path, self.decode_backend, self.to_xyz)
        return set_volume(sample, volume.astype(np.float32) if self.to_float32 else volume)


@transform
class LoadBiomedicalAnnotation(FileReader):
    """Read `sample.label_path` as the target `label` (Z, Y, X)."""

    reads = "label"

    decode_backend: str = "nifti"
    to_xyz: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = read_volume(sample.label_path, self.decode_backend, self.to_xyz)
        sample.targets["label"] = Target(self.files.mapping.apply(np.rint(volume[0]).astype(np.int64)))
        return sample


@transform
class LoadBiomedicalData(FileReader):
    """Read `sample.image_path` (C, Z, Y, X), whose last channel is the label when `with_seg`."""

    with_seg: bool = False
    decode_backend: str = "numpy"
    to_xyz: bool = False

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image", "label") if self.with_seg else ("image",)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = read_volume(sample.image_path, self.decode_backend, self.to_xyz)
        if self.with_seg:
            sample.targets["label"] = Target(self.files.mapping.apply(np.rint(volume[-1]).astype(np.int64)))
            volume = volume[:-1]
        return set_volume(sample, volume.astype(np.float32))


def volume_of(sample: Sample, user: object) -> np.ndarray:
    """Return the sample's volume. Raises UserError for anything but (C, Z, Y, X)."""
    volume = image_of(sample, user)
    if volume.ndim != 4:
        raise UserError(f"{type(user).__name__} works on volumes (C, Z, Y, X); {sample.image_path} is {volume.shape}")
    return volume


def as_triple(value: Any, name: str) -> tuple[int, int, int]:
    """Return a number three times, or three numbers as a tuple."""
    if isinstance(value, int):
        return value, value, value
    if isinstance(value, Sequence) and len(value) == 3:
        return value[0], value[1], value[2]
    raise UserError(f"{name} must be a number or three (Z, Y, X), not {value!r}")


@transform
class BioMedical3DRandomCrop(Step):
    """A box of `crop_shape` (Z, Y, X); with `keep_foreground` around a random voxel of a class other than 0."""

    random = True
    moves_pixels = True

    crop_shape: Any
    keep_foreground: bool = True

    def __post_init__(self) -> None:
        if min(as_triple(self.crop_shape, "BioMedical3DRandomCrop's crop_shape")) < 1:
            raise UserError(f"BioMedical3DRandomCrop's crop_shape is (Z, Y, X) in voxels, not {self.crop_shape!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = volume_of(sample, self)
        shape = np.array(volume.shape[1:])
        size = np.minimum(as_triple(self.crop_shape, "BioMedical3DRandomCrop's crop_shape"), shape)
        start = rng.integers(0, shape - size + 1)
        if self.keep_foreground and sample.label is not None:
            classes = np.setdiff1d(sample.label, [0, 255])
            if len(classes):
                voxels = np.argwhere(sample.label == rng.choice(classes))
                start = np.clip(voxels[int(rng.integers(len(voxels)))] - size // 2, 0, shape - size)
        box = [slice(int(first), int(first + length)) for first, length in zip(start, size, strict=True)]
        index: tuple[Any, ...] = (Ellipsis, *box)
        for_each_map(sample, lambda array, *_: array[index])
        return sample


@transform
class BioMedical3DPad(Step):
    """Fill at the end of each axis up to `pad_shape` (Z, Y, X)."""

    moves_pixels = True

    pad_shape: Any
    pad_val: float = 0.0
    seg_pad_val: int = 0

    def __post_init__(self) -> None:
        as_triple(self.pad_shape, "BioMedical3DPad's pad_shape")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = volume_of(sample, self)
        wanted = as_triple(self.pad_shape, "BioMedical3DPad's pad_shape")
        borders = [(0, max(0, size - old)) for size, old in zip(wanted, volume.shape[1:], strict=True)]
        sample.image = np.pad(volume, [(0, 0), *borders], constant_values=self.pad_val)
        for target in sample.targets.values():
            target.array = np.pad(target.array, borders, constant_values=self.seg_pad_val)
        return sample


@transform
class BioMedical3DRandomFlip(Step):
    """Mirror each of `axes` (0 is Z, 1 is Y, 2 is X) with `prob`; the classes of `swap_label_pairs` then swap."""

    random = True
    moves_pixels = True

    prob: Probability
    axes: Sequence[int]
    swap_label_pairs: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.axes) <= {0, 1, 2}:
            raise UserError(f"BioMedical3DRandomFlip's axes are among 0, 1 and 2, not {self.axes!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume_of(sample, self)
        axes = [axis for axis in self.axes if rng.random() < self.prob]
        sample.meta["flip"], sample.meta["flip_axes"] = bool(axes), axes
        if not axes:
            return sample
        from_the_end = tuple(axis - 3 for axis in axes)  # alike with and without channels
        for_each_map(sample, lambda array, *_: np.ascontiguousarray(np.flip(array, from_the_end)))
        if self.swap_label_pairs and sample.label is not None:
            sample.targets["label"].array = swap_classes(sample.label, self.swap_label_pairs)
        return sample


@transform
class BioMedicalGaussianNoise(ValueStep):
    """With `prob` add noise of `mean` and of a deviation drawn from [0, std]."""

    random = True

    prob: Probability = 0.1
    mean: float = 0.0
    std: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std < 0:
            raise UserError(f"BioMedicalGaussianNoise's std is the largest deviation, not {self.std}")

    def change(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.prob:
            return image
        noise = rng.normal(self.mean, rng.uniform(0, self.std), image.shape)
        return (image + noise).astype(np.float32)


@transform
class BioMedicalGaussianBlur(Step):
    """With `prob`, and then `prob_per_channel`, blur channels by a sigma (in voxels) from `sigma_range`."""

    random = True

    prob: Probability = 0.2
    prob_per_channel: Probability = 0.5
    sigma_range: Any = (0.5, 1.0)
    different_sigma_per_channel: bool = True
    different_sigma_per_axis: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.sigma_range, "BioMedicalGaussianBlur's sigma_range")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        from scipy.ndimage import gaussian_filter

        volume = volume_of(sample, self).astype(np.float32)
        shared = self._draw_sigma(rng)
        for channel in range(len(volume)):
            if rng.random() < self.prob_per_channel:
                sigma = self._draw_sigma(rng) if self.different_sigma_per_channel else shared
                volume[channel] = gaussian_filter(volume[channel], sigma, order=0)
        sample.image = volume
        return sample

    def _draw_sigma(self, rng: np.random.Generator) -> np.ndarray:
        low, high = as_pair(self.sigma_range, "BioMedicalGaussianBlur's sigma_range")
        return np.broadcast_to(rng.uniform(low, high, 3 if self.different_sigma_per_axis else 1), 3)


@transform
class BioMedicalRandomGamma(Step):
    """With `prob` apply a gamma from `gamma_range` to the values scaled to [0, 1], and scale them back.

    `invert_image` works on the negative; `retain_stats` restores the mean and deviation from before.
    """

    random = True

    prob: Probability = 0.5
    gamma_range: Any = (0.5, 2)
    invert_image: bool = False
    per_channel: bool = False
    retain_stats: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.gamma_range, "BioMedicalRandomGamma's gamma_range")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        volume = volume_of(sample, self).astype(np.float32)
        low, high = as_pair(self.gamma_range, "BioMedicalRandomGamma's gamma_range")

        parts = volume if self.per_channel else [volume]
        adjusted = [self._adjust(part, rng.uniform(low, high)) for part in parts]
        sample.image = np.stack(adjusted) if self.per_channel else adjusted[0]
        return sample

    def _adjust(self, values: np.ndarray, gamma: float) -> np.ndarray:
        mean, deviation = values.mean(), values.std()
        signed = -values if self.invert_image else values
        smallest, span = signed.min(), np.ptp(signed)
        result = ((signed - smallest) / (span + 1e-7)) ** gamma * span + smallest
        if self.retain_stats:
            result = (result - result.mean()) / (result.std() + 1e-8) * deviation
            result = result + (-mean if self.invert_image else mean)
        return (-result if self.invert_image else result).astype(np.float32)
