"""Pairs of the images of a split and their labels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from terrazzo.errors import UserError, some
from terrazzo.system.text import read_text, readable_name, stored_names
from terrazzo.transforms.formats.base import LabelFormat

SIDE_FILES = ("classes.txt", "labels.txt", "notes.txt", "meta.json")  # that programs write beside labels
Pair = tuple[Path, "Path | None"]


class PairingError(UserError):
    """Images and labels that do not match; `kind` and `files` are for the check of data."""

    def __init__(self, message: str, kind: str, files: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.kind, self.files = kind, tuple(files)


def suffixes(value: str | Sequence[str]) -> tuple[str, ...]:
    """A suffix or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def ending_of(name: str, endings: Sequence[str]) -> str | None:
    """The longest of the endings that match a file name, regardless of case."""
    return max((ending for ending in endings if name.lower().endswith(ending.lower())), key=len, default=None)


@dataclass(frozen=True)
class Folders:
    """A folder of images and one of labels, each at its image's path with another ending.

    The images are those that the file `split` lists, or all; those whose path ends with one of `exclude` are skipped.
    """

    images: Path
    labels: Path | None
    image_endings: tuple[str, ...]
    label_endings: tuple[str, ...] = ()
    split: Path | None = None
    exclude: tuple[str, ...] = ()
    unlabelled: str = "error"  # an image without a label: an error, or to `skip`, or `background` throughout

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
        if not self.labels.is_dir():
            message = f"there is no label folder {self.labels}: check data_root and data_prefix (or `data.labels`)"
            raise PairingError(message, "unpaired")
        missing = [image for image, label in kept if label is None]
        if missing and self.unlabelled == "error":
            raise PairingError(
                f"{len(missing)} of {len(kept)} images in {self.images} have no label of the same name in "
                f"{self.labels}: "
                f"{some(path.name for path in missing)}; add the labels, or list the images to use in a split file",
                "unpaired",
                missing,
            )
        if len(missing) == len(kept) and self.unlabelled == "skip":
            raise PairingError(f"no image in {self.images} has a label of the same name in {self.labels}", "unpaired")
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
        elif self.images.is_dir():
            found = [(self.images / name, self._label_of(name, self.image_endings)) for name in self._names()]
            problem = f"the folder {self.images} holds no image that ends in {', '.join(self.image_endings)}"
        else:
            found = []
            problem = f"there is no image folder {self.images}: check data_root and data_prefix (or `data.images`)"
        if not found:
            raise PairingError(problem, "empty-split")
        return found

    def unused_labels(self, pairs: Iterable[Pair]) -> list[Path]:
        """The labels that do not belong to any of these images."""
        assert self.labels is not None
        used = {label for _, label in pairs}
        return sorted(
            path
            for path in self.labels.rglob("*")
            if path not in used
            and ending_of(path.name, self.label_endings) is not None
            and not path.name.startswith(".")
            and path.name not in SIDE_FILES
            and not is_excluded(path, self.exclude)
        )

    def _names(self) -> list[Path]:
        """The paths of all images below their folder."""
        names = sorted(
            path.relative_to(self.images)
            for path in self.images.rglob("*")
            if ending_of(path.name, self.image_endings) is not None and path.is_file() and not path.name.startswith(".")
        )
        is_shared = self.labels is not None and self.images.resolve() == self.labels.resolve()
        return [name for name in names if not (is_shared and self._is_label(name.name))]

    def _is_label(self, name: str) -> bool:
        """Report whether a file among the images is a label: its label ending is longer than its image ending."""
        label, image = ending_of(name, self.label_endings), ending_of(name, self.image_endings)
        return label is not None and image is not None and len(label) > len(image)

    def _label_of(self, name: Path, image_endings: Sequence[str]) -> Path | None:
        stem = name.name[: -len(ending_of(name.name, image_endings) or name.suffix)]
        likely_first = sorted(self.label_endings, key=lambda ending: not ending.startswith(name.suffix.lower()))
        for ending in likely_first if self.labels is not None else ():
            for candidate in (stem + ending, stem + ending.upper()):
                path = self.labels / name.parent / candidate  # type: ignore[operator]
                if path.is_file():
                    return path
        return None

    def expected(self, image: Path) -> Path:
        """The path that the label of an image would have."""
        assert self.labels is not None
        return self.labels / image.relative_to(self.images).with_suffix(self.label_endings[0])

    def _listed(self, split: Path) -> Iterator[Pair]:
        """The pairs in lines of `name`, with or without a suffix, or of `image label` paths."""
        if not split.is_file():
            raise PairingError(f"there is no split file {split}", "empty-split")
        for number, line in enumerate(read_text(split).splitlines(), 1):
            parts = line.split()
            if not parts:
                continue
            image = _existing(self.images, line.strip(), self.image_endings)
            if image is not None:
                parts = parts[:1]  # the whole line, spaces included, is one name
            else:
                image = _existing(self.images, parts[0], self.image_endings)
            where = f"{split}, line {number}"
            if image is None:
                raise PairingError(f"{where}: there is no image '{parts[0]}' in {self.images}", "unpaired")
            if len(parts) > 1 and self.labels is not None:
                label = _existing(self.labels, parts[1], self.label_endings)
                if label is None:
                    raise PairingError(f"{where}: there is no label '{parts[1]}' in {self.labels}", "unpaired")
            else:
                endings = (*self.image_endings, image.suffix.lower())
                label = self._label_of(image.relative_to(self.images), endings)
            yield image, label


def indexed_pairs(folders: Folders, labels: LabelFormat, *, strict: bool = True) -> list[Pair]:
    """The images with their labels inside the one file `folders.labels`; None for a missing one without `strict`.

    Raises PairingError for images that the file does not list, unless that has a meaning.
    """
    images = [image for image, _ in replace(folders, labels=None).pairs()]
    found = list(zip(images, labels.find_labels(images, folders.images), strict=True))
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


def settled(pairs: Iterable[Pair], unlabelled: str, expected: Callable[[Path], Path]) -> list[Pair]:
    """Pairs without the images that have no label, or with the path of a missing one for `background`."""
    if unlabelled == "background":
        return [(image, label or expected(image)) for image, label in pairs]
    return [(image, label) for image, label in pairs if label is not None]


def is_excluded(path: Path, exclude: Sequence[str]) -> bool:
    """Report whether a path ends with one of the names."""
    whole = readable_name(f"/{path.as_posix()}")
    return any(whole.endswith(f"/{name}") for name in exclude)


def held_out(names: Sequence[str], share: float, part: str) -> list[int]:
    """The indices of the names of one `part`: a `share` of them, drawn by name alone, is `val`, the rest `train`.

    Each part has at least one; raises UserError for fewer than two names and for a share that is not below 1.
    """
    if part not in ("train", "val"):
        raise UserError(f"holdout: part is 'train' or 'val', not {part!r}")
    order = sorted(
        range(len(names)), key=lambda index: hashlib.sha256(names[index].encode(errors="surrogateescape")).digest()
    )
    if not 0 < share < 1 or len(names) < 2:
        raise UserError(f"a share of {share} of {len(names)} images leaves nothing to train or to validate on")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return sorted(order[:count] if part == "val" else order[count:])


def _existing(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    for stored in stored_names(name):
        for candidate in (stored, *(stored + ending for ending in endings)):
            if (folder / candidate).is_file():
                return folder / candidate
    return None
