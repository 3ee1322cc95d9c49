"""Declarations of data sets: their classes, colours and file layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.registry import DATASETS, declared_dataset

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")


@dataclass(frozen=True)
class Source:
    """The files of a data set as a config gives them, joined with data_root."""

    images: Path
    labels: Path | None
    ann_file: Path | None
    root: Path
    test_mode: bool


@dataclass(frozen=True)
class Listing:
    """The contents of a data set's index file: image and label pairs, and the classes by label value."""

    pairs: list[tuple[Path, Path | None]]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as published; every field can be overridden where a config uses it.

    `layout` gives, for each split, its `data_prefix` and `ann_file`, or the names of the splits that it joins; `counts`
    the published number of images. `read` lists the images of a data set with an index file, in place of a search in
    folders; `describe` returns entries for a sample's meta from its image's name.
    """

    name: str
    about: str = ""
    classes: Sequence[str] = ()
    palette: Sequence[Sequence[int]] = ()
    img_suffix: str | Sequence[str] = IMAGE_SUFFIXES
    seg_map_suffix: str | Sequence[str] = LABEL_SUFFIXES
    img_suffix2: str | Sequence[str] = IMAGE_SUFFIXES  # of the second image of a pair
    depth_map_suffix: str | Sequence[str] = ".png"
    reduce_zero_label: bool = False
    label_map: dict[int, int] | None = None
    ignore: Sequence[int] = ()
    data_prefix: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)  # where a converter writes the data set
    aliases: Sequence[str] = ()  # short names besides its own without `Dataset`
    read: Callable[[Source], Listing] | None = None
    describe: Callable[[Path], dict[str, Any]] | None = None
    open: Callable[[Any, int], Any] | None = None  # from a FolderData and a seed: for one that a class reads

    def split(self, name: str, data_root: str | Path) -> dict[str, Any]:
        """The config section of a split below `data_root`. Raises UserError for one that the data set does not have."""
        if name not in self.layout:
            known = ", ".join(self.layout) or "none: name its folders in data_prefix"
            raise UserError(f"{self.name} has no split '{name}' (it has {known})")
        entry = self.layout[name]
        if isinstance(entry, tuple):
            return {"type": "ConcatDataset", "datasets": [self.split(part, data_root) for part in entry]}
        return {"type": self.name, **entry, "data_root": str(data_root)}


def declare(**facts: Any) -> DatasetSpec:
    """Register the data set with these fields of a DatasetSpec: configs then name it as the `type` of a dataset."""
    spec = DatasetSpec(**facts)
    DATASETS.register(spec)
    return spec


def dataset_spec(name: str) -> DatasetSpec:
    """The declared data set of a type name or a short name (`cityscapes`, `ade`). Raises UserError with the nearest."""
    return declared_dataset(name)


def legend(text: str) -> dict[str, Any]:
    """The `classes` and `palette` in `name #rrggbb, name #rrggbb, ...`."""
    entries = [entry.strip().rsplit(" #", 1) for entry in text.split(",")]
    return {
        "classes": tuple(name for name, _ in entries),
        "palette": tuple(tuple(bytes.fromhex(colour)) for _, colour in entries),
    }


def endings(img_suffix: str | Sequence[str], seg_map_suffix: str | Sequence[str]) -> dict[str, Any]:
    """The endings by which an image and its label differ."""
    return {"img_suffix": img_suffix, "seg_map_suffix": seg_map_suffix}


# a mask of 0 and 255, blurred where it is a JPEG, as classes 0 and 1
BINARY = {value: int(value > 127) for value in range(256)}


def part(images: str, labels: str, ann_file: str = "", **more: Any) -> dict[str, Any]:
    """The config section of a split: its folders below data_root, and the file that lists its images."""
    listed = {"ann_file": ann_file} if ann_file else {}
    return {"data_prefix": {"img_path": images, "seg_map_path": labels}, **listed, **more}


def parts(images: str, labels: str, *splits: str, ann_file: str = "", **renamed: str) -> dict[str, Any]:
    """Splits whose folders (and list) differ in one word, `{}` in the patterns: the split's name, or as `renamed`."""
    words = {split: split for split in splits} | renamed
    return {
        split: part(images.format(word), labels.format(word), ann_file.format(word)) for split, word in words.items()
    }


FOLDER = declare(name="BaseSegDataset", about="Images and labels in two folders, matched by name.")
CUSTOM = declare(name="CustomDataset", about="The 0.x name of a folder of images and labels.")
