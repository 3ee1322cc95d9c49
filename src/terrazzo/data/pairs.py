"""Pairs of the images of a split and their labels."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from terrazzo.data.listing import read_rows, split_table
from terrazzo.errors import UserError, some
from terrazzo.system.text import read_text, readable_name, stored_names
from terrazzo.system.walk import FileIndex
from terrazzo.transforms.formats.base import LabelFormat
from terrazzo.transforms.planes import plane_paths

SIDE_FILES = ("classes.txt", "labels.txt", "notes.txt", "meta.json")  # that programs write beside labels
Pair = tuple[Path, "Path | None"]
Unlabelled = Literal["error", "skip", "background", "teacher"]


class PairingError(UserError):
    """Images and labels that do not match; `kind` and `files` are for the check of data."""

    def __init__(self, message: str, kind: str, files: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.kind, self.files = kind, tuple(files)


def suffixes(value: str | Sequence[str]) -> tuple[str, ...]:
    """A suffix or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def ending_of(name: str, endings: Sequence[str]) -> str | None:
    """The longest of the endings that match a file name, regardless of case; `img_*.png` sets its beginning too."""
    return max((ending for ending in endings if core_of(name, ending) is not None), key=len, default=None)


def core_of(name: str, ending: str) -> str | None:
    """The part of a file name that an image shares with its label: before an ending, or at the `*` of one."""
    before, _, after = ending.lower().rpartition("*")
    fits = name.lower().startswith(before) and name.lower().endswith(after) and len(name) >= len(before) + len(after)
    return name[len(before) : len(name) - len(after)] if fits else None


@dataclass(frozen=True)
class Folders:
    """A folder of images and one of labels, each at its image's path with another ending.

    A `*` in the path of the folders stands for the same folder in both, `**` for any number of them. The images are
    those that the file `split` lists, or all; those whose path ends with one of `exclude` are skipped. Images without a
    label are an error, or are skipped, or contain nothing but background, or stay without for a teacher.
    """

    images: Path
    labels: Path | None
    image_endings: tuple[str, ...]
    label_endings: tuple[str, ...] = ()
    split: Path | None = None
    exclude: tuple[str, ...] = ()
    unlabelled: Unlabelled = "error"

    def pairs(self) -> list[Pair]:
        """(image, label) paths in a stable order, without labels where they have no folder.

        Raises UserError for a missing folder, an empty split, and images without a label.
        """
        found = self.candidates()
        kept = [pair for pair in found if not is_excluded(pair[0], self.exclude)]
        if not kept:
            raise PairingError(f"`exclude` leaves no image of {self.images}", "empty-split")
        if self.labels is None:
            return kept
        if not fixed_part(self.labels).is_dir():
            message = f"there is no label folder {self.labels}: check data_root and data_prefix (or `data.labels`)"
            raise PairingError(message, "unpaired")
        missing = [image for image, label in kept if label is None]
        if missing and (self.unlabelled == "error" or len(missing) == len(kept)):
            raise PairingError(
                f"{len(missing)} of {len(kept)} images in {self.images} have no label of the same name in "
                f"{self.labels}: "
                f"{some(path.name for path in missing)}; add the labels, list the images to use in a split file, or "
                "set `unlabelled: skip` (or background)",
                "unpaired",
                missing,
            )
        unused = self.unused_labels(found) if self.split is None else []
        if unused:
            listed = some(path.name for path in unused)
            warnings.warn(f"{len(unused)} labels in {self.labels} have no image of the same name: {listed}")
        return settled(kept, self.unlabelled, self.expected)

    def candidates(self) -> list[Pair]:
        """The images, excluded ones too, with their labels, None for a missing one.

        Raises PairingError if there is no image, and for a line of the split file whose files do not exist.
        """
        if self.split is not None:
            found = list(self._listed(self.split))
            problem = f"the split file {self.split} names no image"
        elif fixed_part(self.images).is_dir():
            found = [
                (self.image_index.folder / name, self._label_of(name, self.image_endings)) for name in self._names()
            ]
            problem = f"the folder {self.images} holds no image that ends in {', '.join(self.image_endings)}"
        else:
            found = []
            problem = f"there is no image folder {self.images}: check data_root and data_prefix (or `data.images`)"
        if not found:
            raise PairingError(problem, "empty-split")
        return found

    def unused_labels(self, pairs: Iterable[Pair]) -> list[Path]:
        """The labels that do not belong to any of these images."""
        used = {path for pair in pairs for path in pair}
        labels = (self.label_index.folder / path for path in self.label_index.paths)
        return [
            path
            for path in labels
            if path not in used
            and ending_of(path.name, self.label_endings) is not None
            and path.name not in SIDE_FILES
            and not is_excluded(path, self.exclude)
        ]

    @cached_property
    def image_index(self) -> FileIndex:
        """The files below the fixed part of the path of the images."""
        return FileIndex(fixed_part(self.images))

    @cached_property
    def label_index(self) -> FileIndex:
        """The files below the fixed part of the path of the labels."""
        assert self.labels is not None
        folder = fixed_part(self.labels)
        return self.image_index if folder == self.image_index.folder else FileIndex(folder)

    @cached_property
    def image_pattern(self) -> re.Pattern[str]:
        """The expression for the folder of an image, with a group for each `*`."""
        return folder_expression(self.images.relative_to(self.image_index.folder))

    def _names(self) -> list[PurePosixPath]:
        """The paths of all images below the fixed part of their folder."""
        return [
            path
            for path in self.image_index.paths
            if ending_of(path.name, self.image_endings) is not None
            and self.image_pattern.match(str(path)) is not None
            and not self._is_label(path)
        ]

    @cached_property
    def inner_labels(self) -> re.Pattern[str] | None:
        """The expression for the folder of labels inside that of the images, which matches all if both are the same."""
        is_inside = self.labels is not None and self.labels.is_relative_to(self.images)
        return (
            folder_expression(self.labels.relative_to(self.image_index.folder)) if self.labels and is_inside else None
        )

    def _is_label(self, path: PurePosixPath) -> bool:
        """Report whether a file among the images is a label, by its folder or by its longer ending."""
        if self.inner_labels is None or self.inner_labels.match(str(path)) is None:
            return False
        if self.labels != self.images:
            return True
        label, image = ending_of(path.name, self.label_endings), ending_of(path.name, self.image_endings)
        return label is not None and image is not None and len(label) > len(image)

    def _label_of(self, name: PurePosixPath, image_endings: Sequence[str]) -> Path | None:
        """The label of the image with a path below the fixed part of the folder."""
        if self.labels is None or (match := self.image_pattern.match(str(name))) is None:
            return None
        folder = Path(filled(self.labels.as_posix(), match.groups())).relative_to(self.label_index.folder)
        ending = ending_of(name.name, image_endings) or name.suffix
        core = str((folder / str(name)[match.end() :]).parent / (core_of(name.name, ending) or ""))
        for label_ending in sorted(self.label_endings, key=lambda end: not end.startswith(name.suffix.lower())):
            before, _, after = label_ending.rpartition("*")
            head, _, tail = core.rpartition("/")
            path = self.label_index.find(str(PurePosixPath(head, f"{before}{tail}{after}")))
            if path is not None:
                return path
        return None

    def expected(self, image: Path) -> Path:
        """The path that the label of an image would have."""
        below = image.relative_to(self.image_index.folder) if image.is_relative_to(self.image_index.folder) else image
        return self.label_index.folder / below.with_suffix(self.label_endings[0])

    def _listed(self, split: Path) -> Iterator[Pair]:
        """The pairs in lines of `name`, with or without a suffix, or of `image label` paths."""
        if not split_table(split)[0].is_file():
            raise PairingError(f"there is no split file {split}", "empty-split")
        for number, text, cells in read_rows(split):
            where = f"{split}, line {number}"
            image = find_listed(self.image_index, text, self.image_endings, from_elsewhere=False)
            label, name = None, ""
            if image is None:  # else the whole line, spaces included, is one name
                image = find_listed(self.image_index, cells[0], self.image_endings)
                name = next((cell for cell in cells[1:] if not is_number(cell)), "")
            if name and self.labels is not None:
                label = find_listed(self.label_index, name, self.label_endings)
            if image is None or (label is None and name):
                spaced = find_listed(self.image_index, text, self.image_endings)
                image, name = (spaced, "") if spaced is not None else (image, name)
            if image is None:
                raise PairingError(f"{where}: there is no image '{cells[0]}' in {self.images}", "unpaired")
            if name and self.labels is not None and label is None:
                raise PairingError(f"{where}: there is no label '{name}' in {self.labels}", "unpaired")
            if label is None and image.is_relative_to(self.image_index.folder):
                endings = (*self.image_endings, image.suffix.lower())
                label = self._label_of(PurePosixPath(image.relative_to(self.image_index.folder).as_posix()), endings)
            yield image, label


def indexed_pairs(folders: Folders, labels: LabelFormat, *, strict: bool = True) -> list[Pair]:
    """The images with their labels inside the one file `folders.labels`; None for a missing one without `strict`.

    Raises PairingError for images that the file does not list, unless that has a meaning.
    """
    images = [image for image, _ in replace(folders, labels=None).pairs()]
    found = list(zip(images, labels.find_labels(images, folders.image_index.folder), strict=True))
    missing = [image for image, label in found if label is None]
    if not strict or not missing:
        return found
    if folders.unlabelled == "error" or len(missing) == len(images):
        raise PairingError(
            f"{len(missing)} of {len(images)} images in {folders.images} are not in {folders.labels}: "
            f"{some(path.name for path in missing)}; add them to it (without objects if they show none), or give "
            "images without a label a meaning: `unlabelled: skip` or `background`",
            "unpaired",
            missing,
        )
    assert folders.labels is not None
    file = folders.labels
    return settled(found, folders.unlabelled, lambda image: file / image.name)


def planes(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs in which each plane of a stack of images (see transforms.planes) is an image of its own, with its label.

    Raises PairingError for labels of other numbers of planes.
    """
    found: list[Pair] = []
    for image, label in pairs:
        images = plane_paths(image)
        labels: Sequence[Path | None] = plane_paths(label) if label is not None and len(images) > 1 else [label]
        if images == [image] or label is None:
            found += [(one, label) for one in images]
            continue
        if len(labels) != len(images):
            raise PairingError(
                f"{image} holds {len(images)} images, and its label {label} {len(labels)}", "size-mismatch", [image]
            )
        found += zip(images, labels, strict=True)
    return found


def settled(pairs: Iterable[Pair], unlabelled: str, expected: Callable[[Path], Path]) -> list[Pair]:
    """Pairs without the images that have no label, or with the path of a missing one for `background`.

    For a `teacher` they stay as they are.
    """
    if unlabelled == "teacher":
        return list(pairs)
    if unlabelled == "background":
        return [(image, label or expected(image)) for image, label in pairs]
    return [(image, label) for image, label in pairs if label is not None]


def fixed_part(folder: Path) -> Path:
    """The part of a path before the first `*`."""
    count = next((index for index, part in enumerate(folder.parts) if "*" in part), len(folder.parts))
    return Path(*folder.parts[:count])


def folder_expression(pattern: Path | PurePosixPath) -> re.Pattern[str]:
    """The expression for the beginning of paths in the folders of a pattern."""
    parts = [
        "((?:[^/]+/)*)" if part == "**" else re.escape(part).replace(r"\*", "([^/]*)") + "/" for part in pattern.parts
    ]
    return re.compile("".join(parts))


def filled(pattern: str, captured: Sequence[str]) -> str:
    """A pattern with the text that each `*` stands for."""
    first, *others = re.split(r"\*\*/?|\*", pattern)
    return first + "".join(text + piece for text, piece in zip((*captured, *[""] * len(others)), others, strict=False))


def find_listed(index: FileIndex, name: str, endings: Sequence[str], *, from_elsewhere: bool = True) -> Path | None:
    """The file that a list names: in the folder, or at the end of a path `from_elsewhere`."""
    stored = stored_names(name)
    for candidate in (
        *stored,
        *(ending.replace("*", name) if "*" in ending else name + ending for name in stored for ending in endings),
    ):
        parts = [part for part in candidate.split("/") if part != "."]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        found = index.find(next(ends)) if parts else None
        if found is None and from_elsewhere:
            if "/" in candidate and (index.folder / candidate).is_file():
                return index.folder / candidate  # outside of the folder
            found = next((path for end in ends if (path := index.find(end)) is not None), None)
        if found is not None:
            return found
    return None


def is_number(text: str) -> bool:
    """Report whether a cell of a list holds a number, such as the class of an image."""
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def is_excluded(path: Path, exclude: Sequence[str]) -> bool:
    """Report whether a path ends with one of the names, in which `*` stands for anything."""
    text = readable_name(f"/{path.as_posix()}")
    return any(text.endswith(f"/{name}") or ("*" in name and fnmatch.fnmatch(text, f"*/{name}")) for name in exclude)


def names_below(folder: Path, images: Iterable[Path]) -> list[str]:
    """The paths of images below a folder, by which they are held out."""
    return [(image.relative_to(folder) if image.is_relative_to(folder) else image).as_posix() for image in images]


def held_out(
    names: Sequence[str],
    share: float,
    part: str,
    *,
    groups: Sequence[str] | None = None,
    folds: int | None = None,
    fold: int = 1,
) -> list[int]:
    """The indices of the names of one `part`: a `share` of them, drawn by name alone, is `val`, the rest `train`.

    With `folds`, `val` is one of so many parts instead, the `fold`-th from 1 on. Names of one group stay together. Each
    part has at least one; raises UserError for fewer than two names or groups, for a share that is not below 1, and for
    a fold that does not exist.
    """
    if part not in ("train", "val"):
        raise UserError(f"holdout: part is 'train' or 'val', not {part!r}")
    own = list(names if groups is None else groups)
    members: dict[str, list[int]] = {}
    for index, group in enumerate(own):
        members.setdefault(group, []).append(index)
    order = sorted(members, key=lambda group: hashlib.sha256(group.encode(errors="surrogateescape")).digest())
    kinds = "images" if groups is None else "groups"
    if not 0 < share < 1 or len(order) < 2:
        raise UserError(f"a share of {share} of {len(order)} {kinds} leaves nothing to train or to validate on")
    if folds is None:
        count = min(max(1, round(share * len(names))), len(names) - 1)
        kept = first_groups([len(members[group]) for group in order], count)
        chosen = set(order[:kept])
    else:
        if not 1 <= fold <= folds or folds > len(order):
            raise UserError(f"there is no fold {fold} of {folds}: {len(order)} {kinds} make folds 1 to {len(order)}")
        chosen = set(order[fold - 1 :: folds])
    return sorted(index for index, group in enumerate(own) if (group in chosen) == (part == "val"))


def first_groups(sizes: Sequence[int], wanted: int) -> int:
    """The number of first groups, at least one and not all, whose sizes come closest to a sum."""
    sums = list(itertools.accumulate(sizes[:-1]))
    return 1 + min(range(len(sums)), key=lambda index: abs(sums[index] - wanted))


def read_groups(table: Path, names: Sequence[str]) -> list[str]:
    """The group of each image, from a table of `image,group` lines; an image that it does not list stands alone.

    Raises UserError for a missing file, and for a line without a group.
    """
    if not table.is_file():
        raise UserError(f"data.groups: there is no file {table}; it has lines such as `0001.png,patient7`")
    found: dict[str, str] = {}
    for number, cells in enumerate(csv.reader(read_text(table).splitlines()), 1):
        if cells and (len(cells) < 2 or not cells[1].strip()):
            raise UserError(f"{table}, line {number}: '{cells[0]}' has no group: write `image,group`")
        found |= {cells[0].strip(): cells[1].strip()} if cells else {}
    known = {name: found.get(name, found.get(PurePosixPath(name).with_suffix("").as_posix())) for name in names}
    if not any(known.values()):
        raise UserError(f"{table} lists none of the images, such as {names[0]}: its first column has their names")
    return [known[name] or name for name in names]
