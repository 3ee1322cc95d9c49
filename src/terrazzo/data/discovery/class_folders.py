"""Masks of single classes: a folder or a file for each class of an image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path, PurePosixPath

import numpy as np

from terrazzo.data.discovery.files import OTHER_PICTURES, FileTree, place_of, role_of, split_of, split_word
from terrazzo.data.discovery.layouts import FolderLayout
from terrazzo.data.discovery.naming import AVOIDED_ENDINGS, PREFERRED_ENDINGS
from terrazzo.data.discovery.splits import Location, Pictures, combine
from terrazzo.errors import UserError
from terrazzo.system.walk import file_key
from terrazzo.transforms.formats.colours import PICTURES
from terrazzo.transforms.label_files import read_label

NAME = "{name}"
MOST_CLASSES = 64
EXAMPLES = 2  # masks of a class whose values are read


def class_masks(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Images in one folder, and in another one masks in folders or files that are named after classes."""
    masks: dict[PurePosixPath, list[PurePosixPath]] = {}
    for folder, paths in tree.holding(PICTURES).items():
        place = place_of(folder)
        if place.role.kind == "label":
            word = split_word(folder.parts)
            depth = max(place.depth, folder.parts.index(word) if word in folder.parts else 0)
            masks.setdefault(PurePosixPath(*folder.parts[: depth + 1]), []).extend(paths)
    locations, patterns = [], Counter[str]()
    for images, image_paths in pictures.items():
        word = split_word(images.parts)
        for labels, paths in masks.items():
            is_near = images.parent in labels.parents or labels.parent in images.parents
            is_apart = labels not in (images, *images.parents) and split_of(split_word(labels.parts)) == split_of(word)
            pattern = class_pattern(tree.root, labels, paths, image_paths) if is_near and is_apart else None
            if pattern is not None:
                locations.append(Location(images, labels, word))
                patterns[pattern] += 1
    if not locations:
        return None
    images_path, labels_path, splits = combine(locations, tree, pictures)
    files = patterns.most_common(1)[0][0]
    form = {"type": "class_masks", "files": files}
    found = f"found {locations[0].images}, and masks of single classes in {locations[0].labels}"
    return FolderLayout(tree.root, images_path, labels_path, splits, form, found=found)


def class_pattern(
    root: Path, folder: PurePosixPath, masks: Sequence[PurePosixPath], images: Sequence[PurePosixPath]
) -> str | None:
    """The path of masks below a folder with {class} and {name}, such as `{class}/{name}`; None for other labels."""
    stems = {file_key(path.stem): path.stem for path in images}
    examples: dict[str, list[PurePosixPath]] = {}
    for path in masks:
        examples.setdefault(without_name(str(path.relative_to(folder).with_suffix("")), stems), []).append(path)
    other = examples.pop("", [])
    classes = list(examples)
    if not 2 <= len(classes) <= MOST_CLASSES or len(other) > len(masks) / 10:
        return None
    if max(map(len, examples.values())) < 2 <= len(images):
        return None  # every file has a name of its own: they are single objects
    start = cut_at_word(commonprefix(classes))  # noqa: RUF071 - by characters
    end = cut_at_word(commonprefix([one[::-1] for one in classes]))[::-1]  # noqa: RUF071
    names = [one[len(start) : len(one) - len(end)] for one in classes]
    pattern = f"{start}{{class}}{end}"
    if NAME not in pattern or not all(map(is_class_name, names)):
        return None
    return pattern if all(is_binary(root, paths[:EXAMPLES]) for paths in examples.values()) else None


def without_name(path: str, stems: Mapping[str, str]) -> str:
    """A path with {name} in place of an image's name, or an empty string where it has none."""
    parts = path.split("/")
    for at, part in enumerate(parts):
        if file_key(part) in stems:
            return "/".join([*parts[:at], NAME, *parts[at + 1 :]])
    *above, last = parts
    for match in reversed(list(re.finditer(r"[-_. ]+", last))):
        if file_key(last[: match.start()]) in stems:
            return "/".join([*above, NAME + last[match.start() :]])
        if file_key(last[match.end() :]) in stems:
            return "/".join([*above, last[: match.end()] + NAME])
    return ""


def cut_at_word(text: str) -> str:
    """The beginning of a text up to its last separator."""
    return text[: max((match.end() for match in re.finditer(r"[-_./} {]", text)), default=0)]


def is_class_name(name: str) -> bool:
    """Report whether a word may be a class: no split, no kind of pictures and no number."""
    kinds = (*AVOIDED_ENDINGS, *filter(None, PREFERRED_ENDINGS), *OTHER_PICTURES)
    is_kind = any(word in name.lower() for word in kinds)
    return name.strip("0123456789_-. ") != "" and not (is_kind or split_of(name) or role_of(name).kind)


def is_binary(root: Path, paths: Sequence[PurePosixPath]) -> bool:
    """Report whether masks hold at most two values."""
    try:
        return all(len(np.unique(read_label(root / path))) <= 2 for path in paths)
    except (UserError, OSError):
        return False
