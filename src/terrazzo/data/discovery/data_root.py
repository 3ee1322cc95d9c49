"""`--data-root`: a config's data from another place, in its own layout or in folders of images and labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from terrazzo.config.classes import set_classes
from terrazzo.config.config import Config
from terrazzo.config.short_form.data import KEPT
from terrazzo.data.discovery.label_facts import COLOUR_TABLES, NAME_LISTS, levels_to, picture_facts
from terrazzo.data.spec import CUSTOM, FOLDER, IMAGE_SUFFIXES, DatasetSpec
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS
from terrazzo.transforms.formats.base import search_upwards

FOLDERS = (
    ("images", "labels"), ("images", "annotations"), ("images", "masks"), ("img_dir", "ann_dir"), ("imgs", "masks"),
    ("image", "label"), ("JPEGImages", "SegmentationClass"),
)  # fmt: skip
# a loader -> names of its split, the first that is there is taken
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "test": ("val", "validation", "valid", "test"),
}
HELD_OUT = 0.2  # for validation, where there are no splits

Spec = dict[str, Any]


def locate(config: Config, root: str | Path | None, loaders: Sequence[str] = ("train", "val", "test")) -> Config:
    """The config with its data below `root`; as it is without one, unless it is a recipe for a folder of one's own.

    In another layout than the config's, the classes are those of `metainfo`, of `classes.txt` below the root, or as
    many as the labels have. Raises UserError where no images and labels are found for `loaders`.
    """
    found = [spec for name in loaders for spec in data_sets(config.get(f"{name}_dataloader"))]
    if not found:
        return config
    if root is None:
        if config.path is not None or config.name is None or is_declared(found[0]):
            return config
        root = found[0].get("data_root") or "."
        if not Path(root).is_dir():
            raise UserError(
                f"{config.name} names a data set that is none of terrazzo's and there is no folder {root}: say where "
                "the data lie with --data-root (images/ and labels/ below it)"
            )
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(f"--data-root: there is no folder {folder}")
    values = config.to_dict()
    own = all(has_own_layout(spec, folder) for spec in found)
    if own and all(is_declared(spec) for spec in found):
        for name in SPLITS:
            for spec in data_sets(values.get(f"{name}_dataloader")):
                spec["data_root"] = str(folder)
    else:
        move(values, folder, own, loaders)
    return Config(values, config.path, config.name)


def data_sets(section: Any) -> Iterator[Spec]:
    """The data sets on disk of a loader, inside any wrappers."""
    spec = (section or {}).get("dataset", section)
    for part in spec if isinstance(spec, (list, tuple)) else [spec]:
        inner = part and (part.get("dataset") or part.get("datasets"))
        if inner:
            yield from data_sets({"dataset": inner})
        elif part:
            yield part


def is_declared(spec: Spec) -> bool:
    """Whether a data set is of a type that knows its classes and files."""
    return declaration(spec).name not in (FOLDER.name, CUSTOM.name)


def declaration(spec: Spec) -> DatasetSpec:
    return DATASETS.get(spec.get("type", FOLDER.name))


def has_own_layout(spec: Spec, root: Path) -> bool:
    """Whether a data set's images, or the file that lists them, lie below a folder as the config says."""
    prefix = spec.get("data_prefix") or declaration(spec).data_prefix
    listed = spec.get("ann_file")
    return (root / prefix.get("img_path", "")).is_dir() and (not listed or (root / listed).is_file())


def move(values: dict[str, Any], root: Path, own: bool, loaders: Sequence[str]) -> None:
    """Let every loader read images and labels below `root`, as files of class numbers, and the model have its classes.

    Raises UserError where they are not found.
    """
    images, labels = ("", "") if own else folders(root)
    present = [spec for name in loaders for spec in data_sets(values.get(f"{name}_dataloader"))]
    options: Spec = {}
    meta: Spec = next((spec["metainfo"] for spec in present if (spec.get("metainfo") or {}).get("classes")), {})
    if not meta:
        prefix = present[0].get("data_prefix") or {}
        meta, options = find_classes(root, root / (labels or prefix.get("seg_map_path", "")), declaration(present[0]))
    for name in SPLITS:
        section = values.get(f"{name}_dataloader")
        for spec in data_sets(section):
            if not own:
                for key in ("ann_file", "reduce_zero_label", "img_suffix", "seg_map_suffix"):
                    spec.pop(key, None)
                for step in spec.get("pipeline") or ():
                    step.pop("reduce_zero_label", None)
                spec |= split(root, images, labels, name, needed=name in loaders)
            spec |= {"type": FOLDER.name, "data_root": str(root), "metainfo": meta, **options}
        if section:
            section["dataset"] = joined_once(section["dataset"])
    if "model" in values:
        set_classes(values["model"], meta["classes"])


def joined_once(spec: Any) -> Any:
    """A data set, its joined parts each once: those that differed in their folders are now the same."""
    if not isinstance(spec, dict):
        return spec
    if "dataset" in spec:
        return spec | {"dataset": joined_once(spec["dataset"])}
    parts = spec.get("datasets")
    return spec if not parts else parts[0] if all(part == parts[0] for part in parts) else spec


def folders(root: Path) -> tuple[str, str]:
    """The names of the folders of images and labels below `root`. Raises UserError where there are none."""
    for images, labels in FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return images, labels
    raise UserError(
        f"--data-root {root}: it has neither the layout that the config reads nor images/ and labels/ (with train/ and "
        "val/ in each)"
    )


def split(root: Path, images: str, labels: str, name: str, needed: bool) -> Spec:
    """Where the samples of a loader lie: folders of its split, a list of it, or its share of one folder for all.

    Raises UserError where there are other splits, but not one that is `needed`.
    """
    for word in SPLITS[name]:
        if (root / images / word).is_dir():
            return {"data_prefix": {"img_path": f"{images}/{word}", "seg_map_path": f"{labels}/{word}"}}
        if (root / f"{word}.txt").is_file():
            return {"ann_file": f"{word}.txt", "data_prefix": {"img_path": images, "seg_map_path": labels}}
    words = {word for others in SPLITS.values() for word in others}
    parted = any((root / images / word).is_dir() or (root / f"{word}.txt").is_file() for word in words)
    if needed and parted:
        raise UserError(
            f"--data-root {root}: no {name} split: neither a folder {images}/{SPLITS[name][0]} nor a list "
            f"{SPLITS[name][0]}.txt of names in {images}"
        )
    if name == "train":
        warnings.warn(
            f"{root} has neither {images}/train nor a list train.txt: {HELD_OUT:.0%} of the images are held out for "
            "validation, chosen by their names"
        )
    part = "train" if name == "train" else "val"
    whole = {"img_path": images, "seg_map_path": labels}
    return {"data_prefix": whole, "holdout": {"share": HELD_OUT, "part": part}}


def find_classes(root: Path, labels: Path, declared: DatasetSpec) -> tuple[Spec, Spec]:
    """`metainfo` and options of a data set, by the file that names the classes, or else by the labels themselves.

    As many classes without a name as the config's own data set has are these.
    """
    paths = label_files(root, labels)
    entries = dict(picture_facts(root, paths[0].parent, paths, None).entries)
    meta: Spec = {key: entries.pop(key) for key in ("classes", "palette") if key in entries}
    count = len(meta["classes"])
    if search_upwards(paths[0].parent, (*NAME_LISTS, *COLOUR_TABLES), levels_to(root, paths[0].parent)) is None:
        if count == len(declared.classes):
            meta = {"classes": list(declared.classes), "palette": [list(colour) for colour in declared.palette]}
        else:
            warnings.warn(
                f"{root} has no classes.txt: {count} classes by what the labels hold; to name them, write their names "
                "into it, one a line"
            )
    return meta, {KEPT.get(key, key): value for key, value in entries.items()}


def label_files(root: Path, labels: Path) -> list[Path]:
    """The labels of every split; `labels` is the folder of one or of all. Raises UserError where there are none."""
    splits = {word for words in SPLITS.values() for word in words}
    while labels.name in splits and labels != root:
        labels = labels.parent
    paths = sorted(path for path in labels.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"--data-root {root}: the folder {labels} holds no label")
    return paths
