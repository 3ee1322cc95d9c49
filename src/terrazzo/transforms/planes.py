"""Files that hold several images: slices of NIfTI volumes, and planes of TIFF stacks by the axes in their metadata.

Each is a sample of its own, whose path is that of the file with one more name: `scan.nii.gz/scan_plane0012`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError, first_line
from terrazzo.system.extras import import_extra
from terrazzo.system.limits import check_pixels
from terrazzo.transforms.opening import damaged
from terrazzo.transforms.parts import stem_of

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PLANE = re.compile(r"_plane(\d+)$")
MODALITY = re.compile(r"_(\d{4})(\.nii(\.gz)?)$")  # nnU-Net's number of a channel, each in a file of its own
KEPT_VOLUMES = 2  # in memory
MOST_SLICES = 2**15  # of a volume
MOST_DEFLATED = 1032  # bytes that one of deflate can stand for


def is_nifti(path: Path) -> bool:
    """Return whether a path names a NIfTI volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def plane_path(file: Path, index: int) -> Path:
    """The path of a plane of a file."""
    return file / f"{stem_of(file)}_plane{index:04d}"


def plane_of(path: Path) -> int | None:
    """The index of the plane that a path names; None for a file."""
    found = PLANE.search(path.name)
    return int(found[1]) if found and path.parent.is_file() else None


def plane_paths(path: Path) -> list[Path]:
    """The paths of the images in a file: that of the file itself where it is one image. Raises UserError."""
    from terrazzo.transforms.tiff import TIFF_SUFFIXES, header_of

    if is_nifti(path):
        return [plane_path(path, index) for index in range(volume_shape(path)[2])]
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file():
        return [path]
    count = len(header_of(path, any_size=True).images)
    return [path] if count == 1 else [plane_path(path, index) for index in range(count)]


# TIFF


def images_in_pages(description: str, pages: Sequence[int], samples: int) -> tuple[tuple[int, ...], ...]:
    """The pages of each image of a TIFF by the axes that OME-XML or ImageJ describe: their channels are its bands.

    Without such a description, or one that does not fit, all pages are the bands of one image.
    """
    sizes, order = ome_axes(description, samples) or imagej_axes(description)
    if math.prod(sizes.values()) != len(pages):
        return (tuple(pages),)
    shape = [sizes[axis] for axis in reversed(order)]  # the first axis of the order changes fastest
    numbers = np.array(pages).reshape(shape)
    channels = list(reversed(order)).index("C")
    return tuple(tuple(image) for image in np.moveaxis(numbers, channels, -1).reshape(-1, sizes["C"]).tolist())


def ome_axes(description: str, samples: int) -> tuple[dict[str, int], str] | None:
    """The sizes of the axes C, Z and T of OME-XML, and their order, the fastest first; None without OME-XML."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", description)
    if pixels is None:
        return None
    entries = dict(re.findall(r'(\w+)="([^"]*)"', pixels[1]))
    sizes = {axis: int(entries.get(f"Size{axis}", 1)) for axis in "CZT"}
    sizes["C"] = max(1, sizes["C"] // samples)
    order = entries.get("DimensionOrder", "XYCZT").removeprefix("XY")
    return sizes, order if sorted(order) == ["C", "T", "Z"] else "CZT"


def imagej_axes(description: str) -> tuple[dict[str, int], str]:
    """The sizes of the axes of ImageJ's description, all 1 without one, and their order."""
    entries = dict(re.findall(r"^(channels|slices|frames)=(\d+)", description, re.MULTILINE))
    if not description.startswith("ImageJ="):
        entries = {}
    names = {"C": "channels", "Z": "slices", "T": "frames"}
    return {axis: int(entries.get(name, 1)) for axis, name in names.items()}, "CZT"


# NIfTI


def open_nifti(path: Path) -> Any:
    """An open volume (X, Y [, Z [, C]]) of numbers. Raises UserError for a file that is none, or without nibabel."""
    nibabel = import_extra("nibabel", "medical", "NIfTI volumes")
    if not path.is_file():
        raise UserError(f"cannot read {path}: no such file")
    try:
        volume = nibabel.load(path)
        kind, shape = np.dtype(volume.dataobj.dtype), tuple(map(int, volume.shape))
    except Exception as problem:  # of a broken file, of several classes
        raise damaged(str(path), first_line(problem)) from None
    if len(shape) not in (2, 3, 4):
        raise UserError(f"{path} has {len(shape)} axes: a volume has X, Y and Z, and channels in a fourth")
    if kind.kind not in "biuf":
        raise UserError(f"{path} holds values of the type {kind}: save it with integers or floats")
    held = path.stat().st_size * (MOST_DEFLATED if path.name.lower().endswith(".gz") else 1)
    if min(shape) < 1 or math.prod(shape) * kind.itemsize > held:
        raise damaged(str(path), f"its header declares {'x'.join(map(str, shape))} values, which it cannot hold")
    check_pixels(shape[0], shape[1], str(path), math.prod(shape[2:]))
    if len(shape) > 2 and shape[2] > MOST_SLICES:
        raise UserError(f"{path} has {shape[2]:,} slices, more than {MOST_SLICES:,}: save it in parts")
    return volume


def volume_shape(path: Path) -> tuple[int, int, int]:
    """The size of a volume (X, Y, Z). Raises UserError for a file that is none."""
    return (*map(int, open_nifti(path).shape), 1)[:3]  # type: ignore[return-value]


@lru_cache(maxsize=KEPT_VOLUMES)
def read_values(path: Path, changed: int) -> np.ndarray:
    """The values (X, Y, Z, C) of a volume in their own scale; `changed` is the file's time."""
    try:
        values = np.asanyarray(open_nifti(path).dataobj)
    except UserError:
        raise
    except Exception as problem:  # of a broken file, of several classes
        raise damaged(str(path), first_line(problem)) from None
    return values.reshape((*values.shape, 1, 1)[: max(4, values.ndim)])


def read_slice(file: Path, index: int) -> np.ndarray:
    """A slice (Y, X, C) of a volume; of nnU-Net's volumes with a file a channel, those of all of them."""
    found = MODALITY.search(file.name)
    files = [file]
    if found and int(found[1]) == 0:
        siblings = file.parent.glob(f"{glob_text(file.name[: found.start()])}_????{found[2]}")
        files = sorted(path for path in siblings if MODALITY.search(path.name)) or files
    parts = [read_values(one, one.stat().st_mtime_ns) for one in files]
    if len({part.shape[:3] for part in parts}) > 1 or index >= parts[0].shape[2]:
        shapes = ", ".join("x".join(map(str, part.shape[:3])) for part in parts)
        raise UserError(f"{file}: slice {index} is not in all of its volumes, which are of {shapes} voxels")
    return np.concatenate([part[:, :, index].swapaxes(0, 1) for part in parts], axis=2)


def glob_text(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return re.sub(r"([\[\]*?])", r"[\1]", name)
