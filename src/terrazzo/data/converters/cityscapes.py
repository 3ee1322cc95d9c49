"""The converter of Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrazzo.data.converters.arrays import look_up, stored
from terrazzo.data.converters.base import Job, Options, by_stem, converter, copy, make, matched
from terrazzo.data.converters.raw import Raw

IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"

TRAIN_IDS = "_labelTrainIds.png"

# The ids of Cityscapes' 19 evaluated classes, in their order
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


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
