"""The files below a folder, read once, and the words by which folders and files name images, labels and splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from terrazzo.system.walk import walk

IMAGE_WORDS = (
    "images", "image", "imgs", "img", "img_dir", "jpegimages", "leftimg8bit", "rgb", "pictures", "photos", "photo",
    "input", "inputs", "sat", "satellite", "scenes", "frames", "original", "originals", "x", "图像", "图片", "原图",
)  # fmt: skip
# those in front are preferred where there are several
LABEL_WORDS = (
    "manual", "labels", "label", "masks", "mask", "annotations", "annotation", "ann_dir", "annots", "segmentationclass",
    "segmentationclassaug", "gtfine", "gtcoarse", "gt", "gts", "ground_truth", "groundtruth", "truth", "targets",
    "target", "seg", "segs", "segmentations", "segmentation", "semantic", "trimaps", "trimap", "anno", "annos", "annot",
    "ann", "json", "jsons", "y", "标签", "标注", "掩码",
)  # fmt: skip
OTHER_PICTURES = (
    "color",
    "colour",
    "colors",
    "colored",
    "instance",
    "instances",
    "object",
    "overlay",
    "preview",
    "vis",
)
SPLIT_WORDS = {
    "train": ("train", "training", "train2017", "train2014", "trainval", "tr"),
    "val": ("val", "valid", "validation", "val2017", "val2014", "dev"),
    "test": ("test", "testing", "test2017", "ts"),
}
FILLERS = (
    "set",
    "split",
    "data",
    "dataset",
    "list",
    "ids",
    "names",
    "files",
    "images",
    "image",
)  # beside a split's word


def words_in(name: str) -> list[str]:
    """The words and numbers in a name: `imagesTr_2` has images, Tr and 2."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+", name)


def split_of(word: str) -> str | None:
    """The split that the name of a folder or file denotes."""
    return next((split for split, words in SPLIT_WORDS.items() if word.lower() in words), None)


def split_word(parts: Sequence[str]) -> str:
    """The first word that denotes a split, as one of these names or within one, or an empty string."""
    return next(filter(None, map(split_word_in, parts)), "")


def split_word_in(name: str) -> str:
    """The word for a split in a name that has none besides, or none that matter: `val_list`, `imagesTr`."""
    if split_of(name):
        return name
    words = words_in(name)
    found = [word for word in words if split_of(word)]
    others = [word for word in words if not split_of(word) and word.lower() not in FILLERS]
    has_role = role_of(name).kind != ""
    return found[0] if found and (has_role or not others) else ""


class Role(NamedTuple):
    """The content that a folder's name suggests: `image`, `label` or nothing; the word for it, and its other words."""

    kind: str
    word: str = ""
    rest: tuple[str, ...] = ()


def role_of(name: str) -> Role:
    """The role of a folder by its name, or by a word in it; that of labels is the stronger one."""
    words = [word.lower() for word in words_in(name)]
    for kind, known in (("label", LABEL_WORDS), ("image", IMAGE_WORDS)):
        if name.lower() in known:
            return Role(kind, name.lower())
    for kind, known in (("label", LABEL_WORDS), ("image", IMAGE_WORDS)):
        found = [word for word in words if len(word) > 1 and word in known]
        if found:
            return Role(kind, found[0], tuple(word for word in words if word not in (*LABEL_WORDS, *IMAGE_WORDS)))
    return Role("", "", tuple(words))


class Place(NamedTuple):
    """A folder by the names in its path: its role, the index of the part that says so (-1: none), and other words.

    `around` are those of the other parts of the path.
    """

    role: Role
    depth: int
    around: tuple[str, ...]

    @property
    def key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The part that a folder of images and its folder of labels have in common."""
        return self.around, self.role.rest


def place_of(folder: PurePosixPath) -> Place:
    """The role of a folder by the deepest part of its path that has one; the last part where none has."""
    roles = [role_of(part) for part in folder.parts]
    index = max(range(len(roles)), key=lambda at: (min(len(roles[at].word), 2), at), default=-1)  # a letter is weaker
    index = index if index >= 0 and roles[index].kind else -1
    around = tuple(part.lower() for at, part in enumerate(folder.parts) if at != index)
    if index < 0 and around:
        return Place(roles[-1], -1, around[:-1])
    return Place(roles[index] if around or index >= 0 else Role(""), index, around)


class FileTree:
    """The files below a folder by their folders, hidden ones excluded; links to folders are followed.

    Of several paths to the same folder, one that names a split counts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[PurePosixPath, list[PurePosixPath]] = {}
        self.subfolders: dict[PurePosixPath, list[str]] = {}
        names: dict[str, list[PurePosixPath]] = {}
        for folder, real, subfolders, files in walk(root):
            self.subfolders[folder] = subfolders
            names.setdefault(real, []).append(folder)
            if files:
                self.folders[folder] = [folder / name for name in files]
        for folders in names.values():
            kept = min(folders, key=lambda folder: not split_word(folder.parts))  # the first where all are alike
            for folder in folders:
                if folder != kept:
                    self.folders.pop(folder, None)
        self.folders = dict(sorted(self.folders.items()))

    def holding(self, suffixes: Sequence[str]) -> dict[PurePosixPath, list[PurePosixPath]]:
        """The folders that hold files of these suffixes, with these files."""
        kept = {
            folder: [path for path in paths if path.suffix.lower() in suffixes]
            for folder, paths in self.folders.items()
        }
        return {folder: paths for folder, paths in kept.items() if paths}
