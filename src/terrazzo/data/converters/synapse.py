"""The converter of Synapse: slices of abdominal CT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import look_up
from terrazzo.data.converters.base import Job, Options, by_stem, converter, matched
from terrazzo.data.converters.raw import Raw
from terrazzo.transforms.planes import volume_shape
from terrazzo.transforms.volume import read_volume

VAL = [f"{number:04d}" for number in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)]  # the validation volumes of TransUNet

ORGANS = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}  # the 8 of 13 that are usually evaluated

SHOWN = (-125, 275)  # Hounsfield units from black to white


def image_slices(path: Path) -> Iterator[np.ndarray]:
    """The slices of a CT volume in 8 bits."""
    low, high = SHOWN
    volume = read_volume(path, "nifti")[0].clip(low, high)
    return iter(np.rint((volume - low) * (255 / (high - low))).astype(np.uint8))


def label_slices(path: Path) -> Iterator[np.ndarray]:
    """The slices of a label volume as classes."""
    return iter(look_up(np.rint(read_volume(path, "nifti")[0]).astype(np.uint8), ORGANS, 0))


def slice_count(path: Path) -> int:
    """The number of slices of a volume, from its header."""
    return volume_shape(path)[2]


@converter(
    "synapse",
    "SynapseDataset",
    "RawData.zip of the abdomen challenge, with Training/img/img0001.nii.gz and Training/label/label0001.nii.gz",
)
def synapse(raw: Raw, options: Options) -> list[Job]:
    """Every slice of the 30 volumes; a val.txt in RAW (lines such as img0005.nii.gz) names other validation volumes."""
    images = by_stem(raw.matching_files("img????.nii.gz"), ".nii.gz")
    labels = {
        f"img{name[5:]}": path for name, path in by_stem(raw.matching_files("label????.nii.gz"), ".nii.gz").items()
    }
    listed = [re.findall(r"img(\d{4})", path.read_text(encoding="utf-8")) for path in raw.matching_files("val.txt")]
    val = listed[0] if listed else VAL
    jobs = []
    for name, image, label in matched(images, labels, "training"):
        split = "val" if name[3:] in val else "train"
        slices = [f"{split}/case{name[3:]}_slice{index:03d}" for index in range(slice_count(image))]
        jobs.append(Job(tuple(f"img_dir/{piece}.jpg" for piece in slices), partial(image_slices, image)))
        jobs.append(Job(tuple(f"ann_dir/{piece}.png" for piece in slices), partial(label_slices, label)))
    return jobs
