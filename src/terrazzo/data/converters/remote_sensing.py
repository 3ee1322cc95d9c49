"""Converters of aerial and satellite images: iSAID, LEVIR-CD, LoveDA, Potsdam and Vaihingen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.converters.arrays import Box, binary, cut, indices_of, picture, size_of, windows
from terrazzo.data.converters.base import Job, Options, by_stem, converter, copy, matched
from terrazzo.data.converters.raw import Raw
from terrazzo.data.spec import dataset_spec

POTSDAM_VAL = {
    *("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15"),
    *("5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13"),
}
VAIHINGEN_TRAIN = {f"area{number}" for number in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)}

LABEL_FOLDERS = ("gts", "ground_truth")  # in which Vaihingen's masks have the names of the images


def tiles(
    read: Callable[[Path], np.ndarray], path: Path, boxes: list[Box], least: int = 0, fill: int = 0
) -> Iterator[np.ndarray]:
    """The tiles of an image or mask, those smaller than `least` padded with `fill`."""
    return cut(read(path), boxes, least, fill)


def classes_of(dataset: str, first: int, other: int, path: Path) -> np.ndarray:
    """A mask in the colours of a data set's palette, as indices from `first`; other colours are `other`."""
    return indices_of(picture(path), dataset_spec(dataset).palette, other, first)


def tile_jobs(name: str, parts: Sequence[Any], options: Options) -> Iterator[Job]:
    """Yield the jobs that cut images and masks, each (folder, reader, path), into tiles named by their corners."""
    boxes = windows(*size_of(parts[0][2]), options.tile, options.stride)
    names = [f"{name}_{left}_{top}_{right}_{bottom}.png" for top, left, bottom, right in boxes]
    for folder, read, path in parts:
        yield Job(tuple(f"{folder}/{tile}" for tile in names), partial(tiles, read, path, boxes))


def isprs(dataset: str, val: set[str], images: dict[str, Path], labels: dict[str, Path], options: Options) -> list[Job]:
    """Large images and masks of ISPRS cut into tiles; label 0 is for the margins between the classes."""
    jobs: list[Job] = []
    classes = partial(classes_of, dataset, 1, 0)
    for name, image, label in matched(images, labels, dataset):
        split = "val" if name in val else "train"
        parts = ((f"img_dir/{split}", picture, image), (f"ann_dir/{split}", classes, label))
        jobs += tile_jobs(name, parts, options)
    return jobs


def numbered(paths: list[Path], pattern: str) -> dict[str, Path]:
    """Files by the match of the pattern's group in their names, the first one of several."""
    found: dict[str, Path] = {}
    for path in paths:
        match = re.search(pattern, path.name, re.IGNORECASE)
        if match:
            found.setdefault(match.group(1).lower(), path)
    return found


@converter(
    "potsdam",
    "PotsdamDataset",
    "2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip (or 5_Labels_all.zip) of ISPRS Potsdam",
    options=Options(512, 512),
)
def potsdam(raw: Raw, options: Options) -> list[Job]:
    """24 patches for training and 14 for validation, as in the ISPRS contest."""
    images = numbered(raw.matching_files("top_potsdam_*_RGB.tif"), r"potsdam_(\d+_\d+)_RGB")
    masks = raw.matching_files("top_potsdam_*_label_noBoundary.tif") + raw.matching_files("top_potsdam_*_label.tif")
    return isprs("PotsdamDataset", POTSDAM_VAL, images, numbered(masks, r"potsdam_(\d+_\d+)_label"), options)


@converter(
    "vaihingen",
    "ISPRSDataset",
    "ISPRS_semantic_labeling_Vaihingen.zip and its ground_truth_eroded_COMPLETE.zip",
    options=Options(512, 512),
)
def vaihingen(raw: Raw, options: Options) -> list[Job]:
    """16 areas for training and 17 for validation, as in the ISPRS contest."""
    found = raw.matching_files("*/top_mosaic_09cm_area*.tif")
    eroded = [path for path in found if path.stem.lower().endswith("_noboundary")]
    full = [path for path in found if any(mark in part for part in raw.files[path][:-1] for mark in LABEL_FOLDERS)]
    images = numbered([path for path in found if path not in {*eroded, *full}], r"(area\d+)\.tif$")
    labels = numbered(eroded + full, r"(area\d+)(?:_noBoundary)?\.tif$")
    return isprs("ISPRSDataset", set(images) - VAIHINGEN_TRAIN, images, labels, options)


@converter(
    "isaid",
    "iSAIDDataset",
    "DOTA's images and iSAID's Semantic_masks in train/, val/ (and test/)",
    example="train/images/P0000.png",
    splits=("train", "val", "test"),
    optional=("test",),
    options=Options(896, 512),
)
def isaid(raw: Raw, options: Options) -> list[Job]:
    """Overlapping tiles; images smaller than a tile are padded, their labels with 255. The test set has no labels."""
    jobs = []
    for split in ("train", "val", "test"):
        images = by_stem(raw.matching_files("P????.png", under=split), ".png")
        labels = by_stem(raw.matching_files("P????_instance_color_RGB.png", under=split), "_instance_color_RGB.png")
        if split != "test" and images:
            matched(images, labels, split)
        for name, image in sorted(images.items()):
            boxes = windows(*size_of(image), options.tile, options.stride)
            edge = options.tile
            names = [f"{split}/{name}_{top}_{top + edge}_{left}_{left + edge}" for top, left, *_ in boxes]
            outputs = tuple(f"img_dir/{tile}.png" for tile in names)
            jobs.append(Job(outputs, partial(tiles, picture, image, boxes, edge)))
            if split != "test":
                classes = partial(classes_of, "iSAIDDataset", 0, 255)
                outputs = tuple(f"ann_dir/{tile}_instance_color_RGB.png" for tile in names)
                jobs.append(Job(outputs, partial(tiles, classes, labels[name], boxes, edge, 255)))
    return jobs


@converter(
    "levircd",
    "LEVIRCDDataset",
    "train.zip, val.zip and test.zip of LEVIR-CD, each with A/, B/ and label/",
    example="train/A/train_1.png",
    splits=("train", "val", "test"),
    options=Options(256, 256),
)
def levircd(raw: Raw, options: Options) -> list[Job]:
    """Tiles of the images before (A) and after (B), and of the masks of change."""
    jobs: list[Job] = []
    for split in ("train", "val", "test"):
        before = by_stem(raw.matching_files("A/*.png", under=split), ".png")
        after = by_stem(raw.matching_files("B/*.png", under=split), ".png")
        labels = by_stem(raw.matching_files("label/*.png", under=split), ".png")
        if not before:
            continue
        matched(before, after, f"{split}/A")
        for name, image, label in matched(before, labels, f"{split}/A"):
            parts = (("A", picture, image), ("B", picture, after[name]), ("label", binary, label))
            jobs += tile_jobs(name, [(f"{split}/{folder}", *source) for folder, *source in parts], options)
    return jobs


@converter(
    "loveda",
    "LoveDADataset",
    "Train.zip, Val.zip (and Test.zip) of LoveDA",
    example="Train/Urban/images_png/1366.png",
    splits=("train", "val", "test"),
    optional=("test",),
)
def loveda(raw: Raw, options: Options) -> list[Job]:
    """Urban and rural images in one folder, as their numbers are unique. The test set has no labels."""
    jobs = []
    for split in ("train", "val", "test"):
        images = by_stem(raw.matching_files("images_png/*.png", under=split), ".png")
        labels = by_stem(raw.matching_files("masks_png/*.png", under=split), ".png")
        if images and split != "test":
            matched(images, labels, split)
        jobs += [copy(f"img_dir/{split}/{name}.png", path) for name, path in images.items()]
        jobs += [copy(f"ann_dir/{split}/{name}.png", labels[name]) for name in images if name in labels]
    return jobs
