"""Finding the images of a split and the label of each."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from terrazzo.errors import UserError

Pair = tuple[Path, "Path | None"]


def suffixes(value: str | Sequence[str]) -> tuple[str, ...]:
    """One suffix or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def ending_of(name: str, endings: Sequence[str]) -> str | None:
    """The longest of the endings that a file name has, in whatever case."""
    return max((ending for ending in endings if name.lower().endswith(ending.lower())), key=len, default=None)


def find_pairs(
    images: Path,
    labels: Path | None,
    img_suffix: str | Sequence[str],
    seg_map_suffix: str | Sequence[str],
    split: Path | None = None,
) -> list[Pair]:
    """(image, label) paths in a stable order: the names in the `split` file, or all images below the folder.

    A label has its image's path below the other folder, with another suffix. Raises UserError for a missing folder, an
    empty split, and images without a label (naming up to five).
    """
    img_endings, label_endings = suffixes(img_suffix), suffixes(seg_map_suffix)
    if split is not None:
        found = list(_from_split(split, images, labels, img_endings, label_endings))
        if not found:
            raise UserError(f"the split file {split} names no image")
    else:
        if not images.is_dir():
            raise UserError(f"there is no image folder {images}: check data_root and data_prefix (or `data.images`)")
        names = sorted(
            path.relative_to(images)
            for path in images.rglob("*")
            if ending_of(path.name, img_endings) is not None and path.is_file() and not path.name.startswith(".")
        )
        if labels is not None and images.resolve() == labels.resolve():
            names = [name for name in names if not _is_label(name.name, img_endings, label_endings)]
        if not names:
            raise UserError(f"the folder {images} holds no image that ends in {', '.join(img_endings)}")
        found = [(images / name, _label_of(name, labels, img_endings, label_endings)) for name in names]
    if labels is None:
        return found
    if not labels.is_dir():
        raise UserError(f"there is no label folder {labels}: check data_root and data_prefix (or `data.labels`)")
    missing = [image for image, label in found if label is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} images in {images} have no label of the same name in {labels}: "
            f"{_some(missing)}; add the labels, or list the images to use in a split file"
        )
    if split is None:
        _warn_of_unused(labels, {label for _, label in found}, label_endings)
    return found


def held_out(names: Sequence[str], share: float, part: str) -> list[int]:
    """The places of the names of one `part`: a `share` of them, drawn by name alone, is `val`, the rest `train`.

    Raises UserError for a share that leaves one of the two empty.
    """
    if part not in ("train", "val"):
        raise UserError(f"holdout: part is 'train' or 'val', not {part!r}")
    order = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place].encode()).digest())
    count = round(share * len(names)) if 0 < share < 1 else 0
    if not 0 < count < len(names):
        raise UserError(f"holdout: a share of {share} of {len(names)} images leaves nothing to train or to validate on")
    return sorted(order[:count] if part == "val" else order[count:])


def _warn_of_unused(labels: Path, used: set[Path | None], endings: tuple[str, ...]) -> None:
    """Warn of labels that belong to no image."""
    unused = sorted(
        path
        for path in labels.rglob("*")
        if path not in used and ending_of(path.name, endings) is not None and not path.name.startswith(".")
    )
    if unused:
        warnings.warn(f"{len(unused)} labels in {labels} have no image of the same name: {_some(unused)}")


def _is_label(name: str, img_endings: tuple[str, ...], label_endings: tuple[str, ...]) -> bool:
    """Whether a file beside the images is a label: its label ending is longer than that of an image."""
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
    """Lines of `name`, with or without a suffix, or of `image label` paths."""
    if not split.is_file():
        raise UserError(f"there is no split file {split}")
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
            raise UserError(f"{split}, line {number}: there is no image '{parts[0]}' in {images}")
        if len(parts) > 1 and labels is not None:
            label = _existing(labels, parts[1], label_endings)
            if label is None:
                raise UserError(f"{split}, line {number}: there is no label '{parts[1]}' in {labels}")
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
