"""Converters of retinal images (CHASE_DB1, DRIVE, HRF, STARE, REFUGE), and of Synapse: slices of abdominal CT."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import binary, grey, look_up, picture
from terrazzo.data.converters.base import Job, Options, by_stem, converter, make, matched
from terrazzo.data.converters.raw import Raw
from terrazzo.transforms.volume import import_nibabel, read_volume

CUP_AND_DISC = {0: 1, 128: 2, 255: 0}


def vessels(
    images: dict[str, Path], labels: dict[str, Path], suffix: str, is_train: Callable[[str], bool], what: str = "train"
) -> list[Job]:
    """The images of both halves as PNG, and their vessels as classes 0 and 1."""
    jobs = []
    for name, image, label in matched(images, labels, what):
        folder = "training" if is_train(name) else "validation"
        jobs.append(make(f"images/{folder}/{name}.png", picture, image))
        jobs.append(make(f"annotations/{folder}/{name}{suffix}", binary, label))
    return jobs


@converter("chase_db1", "ChaseDB1Dataset", "CHASEDB1.zip, with Image_01L.jpg and Image_01L_1stHO.png")
def chase_db1(raw: Raw, options: Options) -> list[Job]:
    """Both eyes of the first ten children for training, of the other four for validation."""
    images = by_stem(raw.matching_files("Image_??[LR].jpg"), ".jpg")
    labels = by_stem(raw.matching_files("Image_??[LR]_1stHO.png"), "_1stHO.png")
    return vessels(images, labels, "_1stHO.png", lambda name: int(name[6:8]) <= 10)


@converter("drive", "DRIVEDataset", "training.zip and test.zip of DRIVE, with images/ and 1st_manual/")
def drive(raw: Raw, options: Options) -> list[Job]:
    """The published halves, without labels for the test half if they are not in the download."""
    images = by_stem(raw.matching_files("images/*_training.tif"), "_training.tif")
    labels = by_stem(raw.matching_files("1st_manual/*_manual1.gif"), "_manual1.gif")
    jobs = vessels(images, labels, "_manual1.png", lambda name: True)
    tests = by_stem(raw.matching_files("images/*_test.tif"), "_test.tif")
    if any(name in labels for name in tests):
        return jobs + vessels(tests, labels, "_manual1.png", lambda name: False, "val")
    return jobs + [make(f"images/validation/{name}.png", picture, path) for name, path in tests.items()]


@converter("hrf", "HRFDataset", "images and manual segmentations of HRF, such as 01_h.jpg and 01_h.tif")
def hrf(raw: Raw, options: Options) -> list[Job]:
    """The first five healthy, diabetic and glaucomatous eyes for training, the other ten of each for validation."""
    images = by_stem(raw.matching_files("??_h.jpg", "??_g.jpg", "??_dr.jpg"), ".jpg")
    labels = by_stem(raw.matching_files("??_h.tif", "??_g.tif", "??_dr.tif"), ".tif")
    return vessels(images, labels, ".png", lambda name: int(name[:2]) <= 5)


@converter("stare", "STAREDataset", "stare-images.tar and labels-ah.tar, with im0001.ppm.gz and im0001.ah.ppm.gz")
def stare(raw: Raw, options: Options) -> list[Job]:
    """The first ten of the twenty images, up to im0139, for training, the others for validation."""
    images = by_stem(raw.matching_files("im????.ppm", "im????.ppm.gz"), ".ppm", ".ppm.gz")
    labels = by_stem(raw.matching_files("im????.ah.ppm", "im????.ah.ppm.gz"), ".ah.ppm", ".ah.ppm.gz")
    return vessels(images, labels, ".ah.png", lambda name: int(name[2:]) <= 139)


def cup_and_disc(path: Path) -> np.ndarray:
    """The classes of a label: the cup is black, the disc around it grey, the background white."""
    return look_up(grey(path), CUP_AND_DISC, 0)


@converter(
    "refuge",
    "REFUGEDataset",
    "REFUGE-Training400, -Validation400 and -Test400 with their annotations (Disc_Cup_Masks/*.bmp)",
    splits=("train", "val", "test"),
    optional=("test",),
)
def refuge(raw: Raw, options: Options) -> list[Job]:
    """400 images for each split: gNNNN and nNNNN for training, VNNNN for validation, TNNNN for testing."""
    labels = by_stem(raw.matching_files("Disc_Cup_Masks/*.bmp", "Disc_Cup_Masks/*/*.bmp", "[gnVT]????.bmp"), ".bmp")
    jobs = []
    for folder, letters in (("training", "gn"), ("validation", "v"), ("test", "t")):
        images = by_stem(raw.matching_files(f"[{letters}]????.jpg"), ".jpg")
        if folder == "training" or images:
            for name, image, label in matched(images, labels, folder):
                jobs.append(make(f"images/{folder}/{name}.png", picture, image))
                jobs.append(make(f"annotations/{folder}/{name}.png", cup_and_disc, label))
    return jobs


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
    return int(import_nibabel(path).load(path).shape[2])


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
