"""Converters of COCO-Stuff, the 10k and the 164k release."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import look_up, matlab, stored
from terrazzo.data.converters.base import Job, Options, by_stem, chosen, converter, copy, make, matched
from terrazzo.data.converters.cityscapes import TRAIN_IDS
from terrazzo.data.converters.raw import Raw
from terrazzo.errors import UserError

UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # of COCO's ids 1-182

COCO_IDS = [number for number in range(1, 183) if number not in UNUSED]


def pixel_map(path: Path) -> np.ndarray:
    """Ids minus one and 255 (164k) as classes 0-170 and 255."""
    label = stored(path)
    if label.shape[2] != 1:
        raise UserError(f"{path} is a colour image: use the one from stuffthingmaps_trainval2017.zip")
    return look_up(label[..., 0], {number - 1: index for index, number in enumerate(COCO_IDS)}, 255)


def matlab_map(path: Path) -> np.ndarray:
    """Ids and 0 (10k) as classes 1-171 and 0, which the data set's `reduce_zero_label` removes."""
    label = np.asarray(matlab(path, "S"), np.uint8)
    return look_up(label, {number: index + 1 for index, number in enumerate(COCO_IDS)}, 0)


@converter(
    "coco_stuff164k",
    "COCOStuffDataset",
    "train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip",
    example="train2017/000000000009.jpg",
)
def coco_stuff164k(raw: Raw, options: Options) -> list[Job]:
    """The splits of COCO 2017."""
    jobs = []
    for split in ("train2017", "val2017"):
        images = by_stem(raw.matching_files(f"{split}/*.jpg"), ".jpg")
        found = by_stem(raw.matching_files(f"{split}/*.png"), ".png")
        labels = {name: path for name, path in found.items() if not name.lower().endswith("_labeltrainids")}
        for name, image, label in matched(images, labels, split) if images or labels else ():
            jobs.append(copy(f"images/{split}/{name}.jpg", image))
            jobs.append(make(f"annotations/{split}/{name}{TRAIN_IDS}", pixel_map, label))
    return jobs


@converter(
    "coco_stuff10k",
    "COCOStuffDataset",
    "cocostuff-10k-v1.1.zip, with images/, annotations/*.mat and imageLists/",
    splits=("train10k", "val10k"),
)
def coco_stuff10k(raw: Raw, options: Options) -> list[Job]:
    """The splits of imageLists/."""
    images = by_stem(raw.matching_files("images/*.jpg"), ".jpg")
    labels = by_stem(raw.matching_files("annotations/*.mat"), ".mat")
    jobs = []
    for listed, folder in (("train", "train2014"), ("test", "test2014")):
        names = raw.one(f"imageLists/{listed}.txt").read_text(encoding="utf-8").split()
        for name, image, label in matched(chosen(images, names, listed), labels, listed):
            jobs.append(copy(f"images/{folder}/{name}.jpg", image))
            jobs.append(make(f"annotations/{folder}/{name}{TRAIN_IDS}", matlab_map, label))
    return jobs
