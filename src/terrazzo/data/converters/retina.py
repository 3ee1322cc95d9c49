"""Converters of retinal images: CHASE_DB1, DRIVE, HRF, STARE and REFUGE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import binary, grey, look_up, picture
from terrazzo.data.converters.base import Job, Options, by_stem, converter, make, matched
from terrazzo.data.converters.raw import Raw

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
