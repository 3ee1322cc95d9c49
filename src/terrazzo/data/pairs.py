"""Pairs of the images of a split and their labels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from terrazzo.errors import UserError

Pair = tuple[Path, "Path | None"]


class PairingError(UserError):
    """Images and labels that do not match; `kind` and `files` are for the check of data."""

    def __init__(self, message: str, kind: str, files: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.kind, self.files = kind, tuple(files)


@dataclass(frozen=True)
class Folders:
    """Two folders with files that match by name, and the endings of these names."""

    images: Path
    labels: Path
    image_endings: tuple[str, ...]
    label_endings: tuple[str, ...]

    def unused_labels(self, exclude: Sequence[str]) -> list[Path]:
        """The labels that do not belong to any image."""
        pairs = folder_pairs(self.images, self.labels, self.image_endings, self.label_endings)
        return unused_labels(self.labels, {label for _, label in pairs}, self.label_endings, exclude)


def suffixes(value: str | Sequence[str]) -> tuple[str, ...]:
    """A suffix or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def ending_of(name: str, endings: Sequence[str]) -> str | None:
    """The longest of the endings that match a file name, regardless of case."""
    return max((ending for ending in endings if name.lower().endswith(ending.lower())), key=len, default=None)


def find_pairs(
    images: Path,
    labels: Path | None,
    img_suffix: str | Sequence[str],
    seg_map_suffix: str | Sequence[str],
    split: Path | None = None,
    exclude: Sequence[str] = (),
) -> list[Pair]:
    """(image, label) paths in a stable order: the names in the `split` file, or all images below the folder.

    A label has its image's path below the other folder, with another suffix. Images whose path ends with one of
    `exclude` are skipped. Raises UserError for a missing folder, an empty split, and images without a label.
    """
    label_endings = suffixes(seg_map_suffix)
    found = candidate_pairs(images, labels, suffixes(img_suffix), label_endings, split)
    used = {label for _, label in found}
    if exclude:
        found = [pair for pair in found if not is_excluded(pair[0], exclude)]
        if not found:
            raise PairingError(f"`exclude` leaves no image of {images}", "empty-split")
    if labels is None:
        return found
    if not labels.is_dir():
        raise PairingError(
            f"there is no label folder {labels}: check data_root and data_prefix (or `data.labels`)", "unpaired"
        )
    missing = [image for image, label in found if label is None]
    if missing:
        raise PairingError(
            f"{len(missing)} of {len(found)} images in {images} have no label of the same name in {labels}: "
            f"{_some(missing)}; add the labels, or list the images to use in a split file",
            "unpaired",
            missing,
        )
    if split is None:
        unused = unused_labels(labels, used, label_endings, exclude)
        if unused:
            warnings.warn(f"{len(unused)} labels in {labels} have no image of the same name: {_some(unused)}")
    return found


def candidate_pairs(
    images: Path,
    labels: Path | None,
    img_endings: tuple[str, ...],
    label_endings: tuple[str, ...],
    split: Path | None = None,
) -> list[Pair]:
    """The images of the `split` file or of a folder with their labels, None for a missing one.

    Raises PairingError if there is no image, and for a line of the split file whose files do not exist.
    """
    if split is not None:
        found = list(_from_split(split, images, labels, img_endings, label_endings))
        if not found:
            raise PairingError(f"the split file {split} names no image", "empty-split")
        return found
    if not images.is_dir():
        raise PairingError(
            f"there is no image folder {images}: check data_root and data_prefix (or `data.images`)", "empty-split"
        )
    found = folder_pairs(images, labels, img_endings, label_endings)
    if not found:
        raise PairingError(f"the folder {images} holds no image that ends in {', '.join(img_endings)}", "empty-split")
    return found


def held_out(names: Sequence[str], share: float, part: str) -> list[int]:
    """The indices of the names of one `part`: a `share` of them, drawn by name alone, is `val`, the rest `train`.

    Each part has at least one; raises UserError for fewer than two names and for a share that is not below 1.
    """
    if part not in ("train", "val"):
        raise UserError(f"holdout: part is 'train' or 'val', not {part!r}")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).digest())
    if not 0 < share < 1 or len(names) < 2:
        raise UserError(f"a share of {share} of {len(names)} images leaves nothing to train or to validate on")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return sorted(order[:count] if part == "val" else order[count:])


def folder_pairs(
    images: Path, labels: Path | None, img_endings: tuple[str, ...], label_endings: tuple[str, ...]
) -> list[Pair]:
    """All images below a folder with their labels, None for a missing one."""
    names = sorted(
        path.relative_to(images)
        for path in images.rglob("*")
        if ending_of(path.name, img_endings) is not None and path.is_file() and not path.name.startswith(".")
    )
    if labels is not None and images.resolve() == labels.resolve():
        names = [name for name in names if not _is_label(name.name, img_endings, label_endings)]
    return [(images / name, _label_of(name, labels, img_endings, label_endings)) for name in names]


def is_excluded(path: Path, exclude: Sequence[str]) -> bool:
    """Report whether a path ends with one of the names."""
    return any(f"/{path.as_posix()}".endswith(f"/{name}") for name in exclude)


def unused_labels(
    labels: Path, used: set[Path | None], endings: Sequence[str], exclude: Sequence[str] = ()
) -> list[Path]:
    """The labels that do not belong to any image."""
    return sorted(
        path
        for path in labels.rglob("*")
        if path not in used
        and ending_of(path.name, endings) is not None
        and not path.name.startswith(".")
        and not is_excluded(path, exclude)
    )


def _is_label(name: str, img_endings: tuple[str, ...], label_endings: tuple[str, ...]) -> bool:
    """Report whether a file among the images is a label: its label ending is longer than its image ending."""
    label, image = ending_of(name, label_endings), ending_of(name, img_endings)
    return label is not None and image is not None and len(label) > len(image)


def _label_of(
    name: Path, labels: Path | None, img_endings: tuple[str, ...], label_endings: tuple[str, ...]
) -> Path | None:
    if labels is None:
        return None
    stem = name.name[: -len(ending_of(name.name, img_endings) or name.suffix)]
    for label_ending in label_endings:
        for candidate in (stem + label_ending, stem + label_ending.upper()):
            path = labels / name.parent / candidate
            if path.is_file():
                return path
    return None


def _from_split(
    split: Path, images: Path, labels: Path | None, img_endings: tuple[str, ...], label_endings: tuple[str, ...]
) -> Iterable[Pair]:
    """The pairs in lines of `name`, with or without a suffix, or of `image label` paths."""
    if not split.is_file():
        raise PairingError(f"there is no split file {split}", "empty-split")
    for number, line in enumerate(split.read_text(encoding="utf-8").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        image = _existing(images, line.strip(), img_endings)
        if image is not None:
            parts = parts[:1]  # the whole line, spaces included, is one name
        else:
            image = _existing(images, parts[0], img_endings)
        if image is None:
            raise PairingError(f"{split}, line {number}: there is no image '{parts[0]}' in {images}", "unpaired")
        if len(parts) > 1 and labels is not None:
            label = _existing(labels, parts[1], label_endings)
            if label is None:
                raise PairingError(f"{split}, line {number}: there is no label '{parts[1]}' in {labels}", "unpaired")
        else:
            label = _label_of(image.relative_to(images), labels, (*img_endings, image.suffix.lower()), label_endings)
        yield image, label


def _existing(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    for candidate in (name, *(name + ending for ending in endings)):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _some(paths: Sequence[Path], count: int = 5) -> str:
    listed = ", ".join(path.name for path in paths[:count])
    return listed + (", ..." if len(paths) > count else "")
