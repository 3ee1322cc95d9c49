"""Converters of Cityscapes, COCO-Stuff (the 10k and the 164k release) and NYU depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import look_up, matlab, stored
from terrazzo.data.converters.base import Job, Options, by_stem, chosen, converter, copy, make, matched
from terrazzo.data.converters.raw import Raw
from terrazzo.errors import UserError

IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
TRAIN_IDS = "_labelTrainIds.png"
# The ids of Cityscapes' 19 evaluated classes, in their order
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # of COCO's ids 1-182
COCO_IDS = [number for number in range(1, 183) if number not in UNUSED]


def train_ids(path: Path) -> np.ndarray:
    """The classes of a label of Cityscapes' ids; ids without a class are ignored."""
    return look_up(stored(path)[..., 0], {number: index for index, number in enumerate(CLASS_IDS)}, 255)


@converter(
    "cityscapes",
    "CityscapesDataset",
    "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
    example="leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
    splits=("train", "val", "test"),
    optional=("test",),
)
def cityscapes(raw: Raw, options: Options) -> list[Job]:
    """Images unchanged, labels as classes."""
    jobs = []
    for split in ("train", "val", "test"):
        images = by_stem(raw.matching_files(f"leftImg8bit/{split}/*/*{IMAGE}"), IMAGE)
        labels = by_stem(raw.matching_files(f"gtFine/{split}/*/*{LABEL}"), LABEL)
        if not images or (split == "test" and not labels):
            continue
        for name, image, label in matched(images, labels, split):
            city = image.parent.name
            jobs.append(copy(f"leftImg8bit/{split}/{city}/{name}{IMAGE}", image))
            jobs.append(make(f"gtFine/{split}/{city}/{name}_gtFine{TRAIN_IDS}", train_ids, label))
    return jobs


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


@converter(
    "nyu",
    "NYUDataset",
    "sync.zip (kitchen_0028b/rgb_00045.jpg, sync_depth_00045.png) and official_splits/test",
    example="sync/kitchen_0028b/rgb_00045.jpg, with sync_depth_00045.png",
    splits=("train", "test"),
)
def nyu(raw: Raw, options: Options) -> list[Job]:
    """Colour images with their depth in millimetres, named after the room; images without depth are skipped.

    `test` folders hold the test set; training data are the synchronised frames, else the official training half.
    """
    depths = {
        (path.parent, path.stem.removeprefix("sync_depth_")): path
        for path in raw.matching_files("*/*/sync_depth_*.png")
    }
    jobs = []
    found = raw.matching_files("*/*/rgb_*.jpg")
    official = [path for path in found if "official_splits" in raw.files[path]]
    synchronised = [path for path in found if path not in set(official) and "test" not in raw.files[path]]
    for path in found:
        key = (path.parent, path.stem.removeprefix("rgb_"))
        split = "test" if "test" in raw.files[path] else "train"
        if key not in depths or (split == "train" and synchronised and path in set(official)):
            continue
        name = f"{path.parent.name}_{key[1]}"
        jobs += [copy(f"images/{split}/{name}.jpg", path), copy(f"annotations/{split}/{name}.png", depths[key])]
    return jobs
