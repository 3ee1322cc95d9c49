"""Volumes (CT, MRI) from files: images (C, Z, Y, X), labels (Z, Y, X)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import Step


def read_volume(path: Path | str | None, backend: str, to_xyz: bool = False) -> np.ndarray:
    """Read a volume as (C, Z, Y, X), or (C, X, Y, Z) with `to_xyz`; `nifti` needs nibabel, `numpy` reads .npy."""
    if path is None:
        raise UserError("a volume is to be loaded from a sample without a path")
    if not Path(path).exists():
        raise UserError(f"cannot read {path}: no such file")
    try:
        if backend == "numpy":
            volume = np.load(path, allow_pickle=False)
        elif backend == "nifti":
            volume = read_nifti(path)
        else:
            raise UserError(
                f"decode_backend is nifti or numpy, not '{backend}'; .pkl files are not opened: save as .npy"
            )
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot decode {path} as {backend} ({error}); decode_backend is nifti or numpy") from error
    if volume.ndim == 3:
        volume = volume[None]
    elif backend == "nifti":
        volume = np.moveaxis(volume, -1, 0)  # modalities come last in NIfTI
    if backend == "nifti":
        volume = volume.transpose(0, 3, 2, 1)
    return volume.transpose(0, 3, 2, 1) if to_xyz else volume


def read_nifti(path: Path | str) -> np.ndarray:
    """Read the values of a NIfTI file in their own scale, X first. Raises ValueError for another file."""
    nibabel = import_nibabel(path)
    try:
        return np.asarray(nibabel.load(path).get_fdata())
    except nibabel.filebasedimages.ImageFileError as error:
        raise ValueError(str(error)) from error


def import_nibabel(path: Path | str) -> Any:
    """Import the nibabel package. Raises UserError with the command that installs it."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError(f'reading {path} needs nibabel: pip install "terrazzo[medical]"') from error
    return nibabel


def set_volume(sample: Sample, volume: np.ndarray) -> Sample:
    """Put a volume into the sample; `sample.meta["layout"]` records that channels come first."""
    sample.image = volume
    sample.original_size = (volume.shape[-2], volume.shape[-1])
    sample.meta["layout"] = "CZYX"
    return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadBiomedicalImageFromFile(Step):
    """Read `sample.image_path` as a volume (C, Z, Y, X)."""

    reads = "image"

    decode_backend: str = "nifti"
    to_xyz: bool = False
    to_float32: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = read_volume(sample.image_path, self.decode_backend, self.to_xyz)
        return set_volume(sample, volume.astype(np.float32) if self.to_float32 else volume)


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadBiomedicalAnnotation(Step):
    """Read `sample.label_path` as the target `label` (Z, Y, X)."""

    reads = "label"

    decode_backend: str = "nifti"
    to_xyz: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        volume = read_volume(sample.label_path, self.decode_backend, self.to_xyz)
        sample.targets["label"] = Target(np.rint(volume[0]).astype(np.int64))
        return sample


@TRANSFORMS.register
@dataclass(frozen=True)
class LoadBiomedicalData(Step):
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
            sample.targets["label"] = Target(np.rint(volume[-1]).astype(np.int64))
            volume = volume[:-1]
        return set_volume(sample, volume.astype(np.float32))
