"""The files below a folder, read once, and the words by which folders and files name images, labels and splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

IMAGE_WORDS = (
    "images", "image", "imgs", "img", "img_dir", "jpegimages", "leftimg8bit", "rgb", "pictures", "photos", "input",
    "inputs", "x",
)  # fmt: skip
LABEL_WORDS = (
    "labels", "label", "masks", "mask", "annotations", "annotation", "ann_dir", "annots", "segmentationclass",
    "segmentationclassaug", "gtfine", "gtcoarse", "gt", "ground_truth", "groundtruth", "targets", "target", "seg",
    "segmentations", "ann", "json", "jsons", "y",
)  # fmt: skip
SPLIT_WORDS = {
    "train": ("train", "training", "train2017", "train2014", "trainval"),
    "val": ("val", "valid", "validation", "val2017", "val2014", "dev"),
    "test": ("test", "testing", "test2017"),
}
LIST_FOLDERS = ("", "ImageSets/Segmentation", "ImageSets", "splits", "lists")  # of files that list a split's images
LEFT_BY_ARCHIVERS = "__MACOSX"


def split_of(word: str) -> str | None:
    """The split that the name of a folder or file denotes."""
    return next((split for split, words in SPLIT_WORDS.items() if word.lower() in words), None)


def split_word(parts: Sequence[str]) -> str:
    """The first of these words that denotes a split, or an empty string."""
    return next((part for part in parts if split_of(part)), "")


class FileTree:
    """The files below a folder by their folders, hidden ones excluded; links to folders are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[PurePosixPath, list[PurePosixPath]] = {}
        self.subfolders: dict[PurePosixPath, list[str]] = {}
        visited: set[str] = set()
        for current, names, files in os.walk(root, followlinks=True):
            real = os.path.realpath(current)
            names[:] = [] if real in visited else sorted(name for name in names if is_shown(name))
            folder = PurePosixPath(Path(current).relative_to(root).as_posix())
            shown = sorted(name for name in files if is_shown(name)) if real not in visited else []
            visited.add(real)
            self.subfolders[folder] = list(names)
            if shown:
                self.folders[folder] = [folder / name for name in shown]
        self.folders = dict(sorted(self.folders.items()))

    def holding(self, suffixes: Sequence[str]) -> dict[PurePosixPath, list[PurePosixPath]]:
        """The folders that hold files of these suffixes, with these files."""
        kept = {
            folder: [path for path in paths if path.suffix.lower() in suffixes]
            for folder, paths in self.folders.items()
        }
        return {folder: paths for folder, paths in kept.items() if paths}

    def split_lists(self, *bases: PurePosixPath) -> dict[str, str]:
        """The files that list the images of each split (`train.txt`), from the first of the usual folders with any.

        The list `default.txt` of CVAT is that of the training images.
        """
        for base in bases:
            for folder in LIST_FOLDERS:
                paths = self.folders.get(base / folder, ())
                names = {path.stem.lower(): str(path) for path in paths if path.suffix == ".txt"}
                found = {
                    split: next(names[word] for word in words if word in names)
                    for split, words in SPLIT_WORDS.items()
                    if not names.keys().isdisjoint(words)
                }
                if found or "default" in names:
                    return found or {"train": names["default"]}
        return {}


def is_shown(name: str) -> bool:
    """Report whether a file or folder belongs to the data: neither hidden nor left by an archiver."""
    return not name.startswith((".", LEFT_BY_ARCHIVERS))
