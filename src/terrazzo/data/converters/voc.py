"""Converters of PASCAL Context, and of PASCAL VOC 2012 with the annotations of SBD."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.converters.arrays import matlab
from terrazzo.data.converters.base import Job, Options, by_stem, chosen, converter, copy, make, matched, text
from terrazzo.data.converters.raw import Missing, Raw
from terrazzo.errors import UserError
from terrazzo.transforms.formats.raster import run_lengths

# The 59 classes, in alphabetical order, among the 459 numbered labels of PASCAL Context
CONTEXT_IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)


def names_in(path: Path) -> list[str]:
    """The first word of each line."""
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def context_classes(label: np.ndarray) -> np.ndarray:
    """Label numbers as the 59 classes from 1 on, or as the background, 0."""
    table = np.zeros(max(CONTEXT_IDS[-1], int(label.max(initial=0))) + 1, np.uint8)
    table[list(CONTEXT_IDS)] = np.arange(1, len(CONTEXT_IDS) + 1)
    return table[label]


def context_mat(path: Path) -> np.ndarray:
    """The classes of a .mat file of PASCAL Context."""
    return context_classes(np.asarray(matlab(path, "LabelMap"), np.int32))


def context_regions(name: str, height: int, width: int, regions: list[tuple[int, Any]]) -> np.ndarray:
    """The classes of an image's regions, painted one over the other."""
    label = np.zeros((height, width), np.int32)
    try:
        for number, segmentation in regions:
            label[run_lengths(segmentation["counts"], height, width)] = number
    except (UserError, KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"trainval_merged.json has a broken region for {name}: {error}") from error
    return context_classes(label)


@converter(
    "pascal_context",
    "PascalContextDataset",
    "VOCtrainval_03-May-2010.tar (VOC2010/JPEGImages, ImageSets) and trainval_merged.json or trainval.tar.gz",
)
def pascal_context(raw: Raw, options: Options) -> list[Job]:
    """Labels from trainval_merged.json, or from the .mat files of trainval.tar.gz with the splits of VOC 2010."""
    images = by_stem(raw.matching_files("JPEGImages/*.jpg"), ".jpg")
    merged = raw.matching_files("trainval_merged.json")
    return context_from_json(images, merged[0]) if merged else context_from_mat(raw, images)


def context_jobs(images: dict[str, Path], labels: dict[str, Job], splits: dict[str, list[str]]) -> list[Job]:
    """The jobs for images, labels and lists of the splits."""
    jobs = []
    for split, names in splits.items():
        jobs += [copy(f"JPEGImages/{name}.jpg", path) for name, path in chosen(images, names, split).items()]
        jobs += [labels[name] for name in names]
        jobs.append(text(f"ImageSets/SegmentationContext/{split}.txt", names))
    return jobs


def context_from_json(images: dict[str, Path], path: Path) -> list[Job]:
    """The jobs for the regions and splits of trainval_merged.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        regions = defaultdict(list)
        for region in content["annos_segmentation"]:
            regions[region["image_id"]].append((int(region["category_id"]), region["segmentation"]))
        splits: dict[str, list[str]] = {"train": [], "val": []}
        labels = {}
        for entry in content["images"]:
            name = Path(entry["file_name"]).stem
            if entry["phase"] in splits:
                splits[entry["phase"]].append(name)
                arguments = (name, int(entry["height"]), int(entry["width"]), regions[entry["image_id"]])
                labels[name] = make(f"SegmentationClassContext/{name}.png", context_regions, *arguments)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the trainval_merged.json of PASCAL Context ({error})") from error
    return context_jobs(images, labels, {split: sorted(names) for split, names in splits.items()})


def context_from_mat(raw: Raw, images: dict[str, Path]) -> list[Job]:
    """The jobs for .mat files, with the splits of VOC 2010."""
    mats = by_stem(raw.matching_files("trainval/*.mat"), ".mat")
    if not mats:
        raise Missing("there is neither trainval_merged.json nor trainval/*.mat")
    labels = {name: make(f"SegmentationClassContext/{name}.png", context_mat, path) for name, path in mats.items()}
    splits = {}
    for split in ("train", "val"):
        listed = names_in(raw.one(f"VOC2010/ImageSets/Main/{split}.txt", f"ImageSets/Main/{split}.txt"))
        splits[split] = [name for name in listed if name in mats]
    return context_jobs(images, labels, splits)


def sbd_label(path: Path) -> np.ndarray:
    """The classes of a .mat file of SBD."""
    return np.asarray(matlab(path, "GTcls", "Segmentation"), np.uint8)


@converter(
    "voc_aug",
    "PascalVOCDataset",
    "VOCtrainval_11-May-2012.tar (VOC2012/) and SBD's benchmark.tgz (benchmark_RELEASE/dataset/cls/*.mat)",
    splits=("train", "val", "aug"),
)
def voc_aug(raw: Raw, options: Options) -> list[Job]:
    """The splits of VOC 2012, and `aug`: the images that SBD annotates outside both."""
    images = by_stem(raw.matching_files("VOC2012/JPEGImages/*.jpg", "img/*.jpg"), ".jpg")
    labels = by_stem(raw.matching_files("VOC2012/SegmentationClass/*.png"), ".png")
    mats = by_stem(raw.matching_files("cls/*.mat"), ".mat")
    if not mats:
        raise Missing("there is no benchmark_RELEASE/dataset/cls/*.mat of SBD")
    splits = {split: names_in(raw.one(f"VOC2012/ImageSets/Segmentation/{split}.txt")) for split in ("train", "val")}
    jobs, used = [], {name for names in splits.values() for name in names}
    for split, names in splits.items():
        for name, _, label in matched({name: images[name] for name in names if name in images}, labels, split):
            jobs.append(copy(f"SegmentationClass/{name}.png", label))
    splits["aug"] = sorted(name for name in mats if name not in used)
    jobs += [make(f"SegmentationClassAug/{name}.png", sbd_label, mats[name]) for name in splits["aug"]]
    for split, names in splits.items():
        jobs += [copy(f"JPEGImages/{name}.jpg", path) for name, path in chosen(images, names, split).items()]
        jobs.append(text(f"ImageSets/Segmentation/{split}.txt", names))
    return jobs
