"""The folders of splits as a config names them: a path of images and one of labels, with `{split}` and `*`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from terrazzo.data.discovery.files import SPLIT_WORDS, FileTree, split_of, split_word_in
from terrazzo.data.discovery.layouts import HELD_OUT
from terrazzo.data.discovery.lists import split_lists
from terrazzo.data.pairs import folder_expression

ANY_SPLIT = "/{split}"  # at the end of a path, below which the short form looks for splits anyway

Pictures = Mapping[PurePosixPath, Sequence[PurePosixPath]]
Combined = tuple[str, str, dict[str, "str | float"]]  # images and labels, each split's word for {split} in these


class Location(NamedTuple):
    """The images and labels (a folder or a COCO file) of a split, and the word in their paths that names it."""

    images: PurePosixPath
    labels: PurePosixPath
    word: str


def combine(locations: Sequence[Location], tree: FileTree, pictures: Pictures) -> Combined:
    """The common form of locations; those of no split are training images where no others are."""
    by_split: dict[str, list[Location]] = {}
    for location in locations:
        by_split.setdefault(split_of(location.word) or "", []).append(location)
    named = {split: by_split[split] for split in SPLIT_WORDS if split in by_split}
    if "" in by_split and "train" not in named:
        return whole(by_split[""], tree, pictures)

    # splits whose folders have nothing in common cannot be written as one entry: the first one is taken alone
    patterns = common_patterns([location for found in named.values() for location in found])
    if patterns is None or not all("{split}" in pattern for pattern in patterns):
        split, found = next(iter(named.items()))
        named, patterns = {split: found}, common_patterns(found)
        if patterns is None or not all("{split}" in pattern for pattern in patterns):
            return whole(found, tree, pictures)
    images, labels = patterns
    splits: dict[str, str | float] = {split: found[0].word for split, found in named.items()}

    # validation images without labels are a mistake, which whoever opens the split reports
    parent = PurePosixPath(images.partition("{split}")[0])
    for word in tree.subfolders.get(parent, ()) if "train" in splits and "val" not in splits else ():
        folder = PurePosixPath(images.replace("{split}", word))
        if split_of(word) == "val" and any(folder in (path, *path.parents) for path in pictures):
            splits["val"] = word
    if "train" in splits and "val" not in splits:
        splits["val"] = HELD_OUT
    return images, labels, splits


def whole(locations: Sequence[Location], tree: FileTree, pictures: Pictures) -> Combined:
    """All images of some folders, with the lists that assign them to splits if there are any."""
    lists = split_lists(tree, [path for paths in pictures.values() for path in paths])
    if lists is not None and str(locations[0].labels) in lists.splits.values():
        lists = None  # a table of labels rather than of images
    splits: dict[str, str | float] = {**(lists.splits if lists is not None else {"train": ""})}
    if "train" in splits and "val" not in splits:
        splits["val"] = HELD_OUT
    images, labels = common_patterns([location._replace(word="") for location in locations]) or map(
        str, locations[0][:2]
    )
    return images, labels, splits


def common_patterns(locations: Sequence[Location]) -> tuple[str, str] | None:
    """The paths of images and of labels: `{split}` for each split's word and `*` where folders differ.

    None where these do not differ in the same way.
    """
    if len({(split_of(location.word), location.word) for location in locations}) > len(
        {split_of(location.word) for location in locations}
    ):
        return None  # two words for one split
    images = list(dict.fromkeys(with_split(location.images, location.word) for location in locations))
    labels = list(dict.fromkeys(with_split(location.labels, location.word) for location in locations))
    if len(images) == len(labels) == 1:
        return str(images[0]), str(labels[0])
    if all(location.images == location.labels for location in locations):
        folder = os.path.commonpath(images)
        return folder or ".", folder or "."
    for star in (one_star, two_stars):
        patterns = star(images), star(labels)
        if all(patterns) and all(same_folders(patterns, location) for location in locations):
            return str(patterns[0]), str(patterns[1])
    return None


def with_split(path: PurePosixPath, word: str) -> PurePosixPath:
    """A path with {split} for the folder called `word`, or for that word in the name of a folder or file."""
    index = next((at for at, part in enumerate(path.parts) if word and word in (part, split_word_in(part))), None)
    if index is None:
        return path.with_name(path.name.replace(word, "{split}", 1)) if path.name and word else path
    part = path.parts[index].replace(word, "{split}", 1)
    return PurePosixPath(*path.parts[:index], part, *path.parts[index + 1 :])


def one_star(paths: Sequence[PurePosixPath]) -> PurePosixPath | None:
    """The path with `*` for each folder in which paths of one depth differ, or for the beginning of its name."""
    if len({len(path.parts) for path in paths}) > 1:
        return None
    parts = []
    for names in zip(*(path.parts for path in paths), strict=True):
        ends = {name[name.rfind("_") :] if "_" in name else "" for name in names}
        parts.append(names[0] if len(set(names)) == 1 else f"*{ends.pop() if len(ends) == 1 else ''}")
    return PurePosixPath(*parts)


def two_stars(paths: Sequence[PurePosixPath]) -> PurePosixPath | None:
    """The path with `**` between what paths of several depths have in common."""
    start = PurePosixPath(os.path.commonpath(paths) or ".").parts
    rest = [path.parts[len(start) :] for path in paths]
    end = next((n for n in range(min(map(len, rest)), 0, -1) if len({parts[-n:] for parts in rest}) == 1), 0)
    return PurePosixPath(*start, "**", *rest[0][len(rest[0]) - end :]) if end else None


def same_folders(patterns: Sequence[PurePosixPath | None], location: Location) -> bool:
    """Report whether each `*` stands for the same in the folders of the images and the labels."""
    found = []
    for pattern, folder in zip(patterns, location[:2], strict=True):
        match = folder_expression(pattern).fullmatch(f"{with_split(folder, location.word)}/") if pattern else None
        found.append(match and match.groups())
    return found[0] is not None and found[0] == found[1]
