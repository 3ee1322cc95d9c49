"""Files in a folder that list the images of each split, with or without their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from terrazzo.data.discovery.files import SPLIT_WORDS, FileTree, split_of, split_word_in
from terrazzo.data.listing import Row, read_rows, split_values
from terrazzo.data.pairs import is_number
from terrazzo.errors import UserError
from terrazzo.system.walk import file_key

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
LOOKED_AT = 50  # lines that show whether a file lists images

ByName = Mapping[str, Sequence[PurePosixPath]]


@dataclass(frozen=True)
class SplitLists:
    """The file that lists each split, and the files on its lines where these are pairs of an image and a label."""

    splits: dict[str, str]
    pairs: list[tuple[PurePosixPath, PurePosixPath]]

    def folders(self) -> tuple[str, str]:
        """The folders that hold all the images and all the labels of the pairs."""
        images, labels = zip(*self.pairs, strict=True)
        return common_folder(images), common_folder(labels)


def split_lists(tree: FileTree, files: Sequence[PurePosixPath], *, pairs: bool = False) -> SplitLists | None:
    """The lists of images in one folder of the tree, or `pairs` of an image and a label; None where there are none.

    The lists of segmentation data are preferred, then those of the most splits; CVAT's `default.txt` is that of the
    training images.
    """
    by_name: dict[str, list[PurePosixPath]] = {}
    for path in files:
        for name in {path.name, path.stem}:
            by_name.setdefault(file_key(name), []).append(path)
    found = [
        lists for paths in tree.holding(LIST_SUFFIXES).values() if (lists := lists_in(tree, paths, by_name, pairs))
    ]
    return min(found, key=list_rank, default=None)


def list_rank(lists: SplitLists) -> tuple[bool, int, int, str]:
    """The order in which lists are preferred, the best ones first."""
    folder = PurePosixPath(next(iter(lists.splits.values()))).parent
    return "segmentation" not in str(folder).lower(), -len(lists.splits), len(folder.parts), str(folder)


def lists_in(tree: FileTree, paths: Sequence[PurePosixPath], by_name: ByName, pairs: bool) -> SplitLists | None:
    """The lists among the files of a folder."""
    splits: dict[str, tuple[int, str]] = {}
    listed: list[tuple[PurePosixPath, PurePosixPath]] = []
    for path in paths:
        word = split_word_in(path.stem)
        split = split_of(word) or ("train" if path.stem == "default" else None)
        if split is None and not (pairs and path.suffix != ".txt"):
            continue
        rows = rows_of(tree, path)
        if not lists_images(rows, by_name, path):
            continue
        named = [pair for row in rows if (pair := pair_of(row, by_name)) is not None]
        if pairs and len(named) < len(rows) and split != "test":
            continue
        listed += named
        order = SPLIT_WORDS[split].index(word.lower()) if split and word else 0
        for part, name in parts_of(tree, path, split):
            splits[part] = min(splits.get(part, (order, name)), (order, name))
    if not splits or (pairs and not listed) or (pairs and "train" not in splits):
        return None
    return SplitLists({split: splits[split][1] for split in SPLIT_WORDS if split in splits}, listed)


def parts_of(tree: FileTree, path: PurePosixPath, split: str | None) -> Iterator[tuple[str, str]]:
    """The splits of a list, with its name for each: that of its file, or those in a column of a table."""
    parts = [] if split else [value for value in split_values(tree.root / path) if split_of(value)]
    yield from ((str(split_of(value)), f"{path}:{value}") for value in parts)
    if not parts:
        yield split or "train", str(path)


def rows_of(tree: FileTree, path: PurePosixPath) -> list[Row]:
    """The lines of a list; none of a file that is not text."""
    try:
        return read_rows(tree.root / path)
    except (UnicodeDecodeError, UserError, ValueError):
        return []


def lists_images(rows: Sequence[Row], by_name: ByName, path: PurePosixPath) -> bool:
    """Report whether at least half of the lines of a file name an image, each another one in a table."""
    if path.suffix == ".csv" and len({row.cells[0] for row in rows}) < len(rows):
        return False  # a line for each object, not for each image
    some = rows[:LOOKED_AT]
    known = [row for row in some if any(files_named(name, by_name) for name in (row.text, *row.cells[:1]))]
    return bool(some) and 2 * len(known) >= len(some)


def files_named(name: str, by_name: ByName) -> Sequence[PurePosixPath]:
    """The files with the last part of a path as their name, with or without a suffix."""
    return by_name.get(file_key(PurePosixPath(name).name), ())


def pair_of(row: Row, by_name: ByName) -> tuple[PurePosixPath, PurePosixPath] | None:
    """The image and the label on a line; None where it has no second path."""
    label = next((cell for cell in row.cells[1:] if not is_number(cell)), "")
    pair = [closest(files_named(name, by_name), name) for name in (row.cells[0], label) if name]
    return (pair[0], pair[1]) if len(pair) == 2 and pair[0] and pair[1] and pair[0] != pair[1] else None  # type: ignore[return-value]


def closest(paths: Sequence[PurePosixPath], name: str) -> PurePosixPath | None:
    """The path that ends most like a name in a list."""
    wanted = file_key(name).split("/")[::-1]

    def alike(path: PurePosixPath) -> int:
        parts = file_key(str(path)).split("/")[::-1]
        return sum(1 for one, other in zip(parts, wanted, strict=False) if one == other)

    return max(paths, key=alike, default=None)


def common_folder(paths: Sequence[PurePosixPath]) -> str:
    """The deepest folder that holds all files."""
    return os.path.commonpath([path.parent / "." for path in paths]) or "."
