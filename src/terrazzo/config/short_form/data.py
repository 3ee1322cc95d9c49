"""The short form's section `data` as data sets of the 1.x vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEPT = {
    "label_map": "label_map",
    "reduce_zero_label": "reduce_zero_label",
    "label_format": "label_format",
    "image_suffix": "img_suffix",
    "label_suffix": "seg_map_suffix",
    "cache": "cache",
}


def dataset(data: Mapping[str, Any], split: str, path: Path | None) -> dict[str, Any]:
    """A split: `images/SPLIT` and `labels/SPLIT`, or what `data.SPLIT` names (a split file, or a folder in both).

    A number for `val` is the share of the images that is held out for validation.
    """
    root = Path(data.get("root", "."))
    if path is not None and not root.is_absolute():
        root = path.parent / root
    section: dict[str, Any] = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "metainfo": {"classes": [str(name) for name in data["classes"]]},
        **places(data, split, root),
    }
    if data.get("palette"):
        section["metainfo"]["palette"] = [list(colour) for colour in data["palette"]]
    if data.get("ignore") is not None:
        section["ignore"] = as_list(data["ignore"])
    if data.get("exclude"):
        section["exclude"] = [str(name) for name in as_list(data["exclude"])]
    return section | {name: data[key] for key, name in KEPT.items() if data.get(key) is not None}


def places(data: Mapping[str, Any], split: str, root: Path) -> dict[str, Any]:
    """Where a split's images and labels lie below the root, and which of them it takes."""
    images, labels = str(data.get("images", "images")), str(data.get("labels", "labels"))
    chosen, more = data.get(split) or split, {}
    if isinstance(data.get("val"), float) and split != "test":
        chosen, more = data.get("train") or "", {"holdout": {"share": data["val"], "part": split}}
    if Path(chosen).suffix:
        return {"ann_file": chosen, "data_prefix": {"img_path": images, "seg_map_path": labels}, **more}
    label_place = coco_file(labels, chosen, root) if is_format(data, "coco") else within(labels, chosen)
    return {"data_prefix": {"img_path": within(images, chosen), "seg_map_path": label_place}, **more}


def within(folder: str, split: str) -> str:
    """The folder of a split: with its name for `{split}` in that of all, else a folder below it."""
    return folder.replace("{split}", split) if "{split}" in folder else f"{folder}/{split}".rstrip("/")


def is_format(data: Mapping[str, Any], name: str) -> bool:
    """Whether `data.label_format` names a format, by itself or with options."""
    spec = data.get("label_format")
    return name == (spec.get("type") if isinstance(spec, Mapping) else spec)


def coco_file(labels: str, split: str, root: Path) -> str:
    """The COCO file of a split: `labels` itself, or in that folder SPLIT.json, instances_SPLIT.json or the only one."""
    if labels.endswith(".json"):
        return labels.replace("{split}", split)
    for name in (f"{split}.json", f"instances_{split}.json", f"instances_{split}2017.json"):
        if (root / labels / name).is_file():
            return f"{labels}/{name}"
    return within(labels, split)


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it, None as an empty one."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
