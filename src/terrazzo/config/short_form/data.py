"""The short form's section `data` as data sets of the 1.x vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrazzo.config.short_form.messages import Problem

if TYPE_CHECKING:
    from terrazzo.config.short_form.schema import DataKeys

KEPT = {
    "label_map": "label_map",
    "reduce_zero_label": "reduce_zero_label",
    "label_format": "label_format",
    "image_suffix": "img_suffix",
    "label_suffix": "seg_map_suffix",
    "cache": "cache",
}
IGNORED = 255


def dataset(data: DataKeys, split: str, path: Path | None) -> dict[str, Any]:
    """Return the data set of a split: `images/SPLIT` and `labels/SPLIT`, or what `data.SPLIT` names.

    That is a folder in both, a file of names or, for `val`, the share of the images to hold out for validation.
    """
    root = Path(data.root)
    if path is not None and not root.is_absolute():
        root = path.parent / root
    section: dict[str, Any] = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "metainfo": {"classes": list(data.classes)},
        **files_of(data, split, root),
    }
    if data.palette:
        section["metainfo"]["palette"] = [list(colour) for colour in data.palette]
    if data.ignore is not None:
        section["ignore"] = list(data.ignore)
    if data.exclude:
        section["exclude"] = list(data.exclude)
    return section | {name: value for key, name in KEPT.items() if (value := getattr(data, key)) is not None}


def files_of(data: DataKeys, split: str, root: Path) -> dict[str, Any]:
    """Return where a split's images and labels are below the root, and which of them it takes."""
    chosen, holdout = getattr(data, split) or split, {}
    if isinstance(data.val, float) and split != "test":
        chosen, holdout = data.train or "", {"holdout": {"share": data.val, "part": split}}
    if Path(chosen).suffix:
        return {"ann_file": chosen, "data_prefix": {"img_path": data.images, "seg_map_path": data.labels}, **holdout}
    is_coco = (data.label_format.get("type") if isinstance(data.label_format, Mapping) else data.label_format) == "coco"
    labels = coco_file(data.labels, chosen, root) if is_coco else within(data.labels, chosen)
    return {"data_prefix": {"img_path": within(data.images, chosen), "seg_map_path": labels}, **holdout}


def within(folder: str, split: str) -> str:
    """Return the folder of a split: with its name for `{split}` in that of all, else a folder below it."""
    return folder.replace("{split}", split) if "{split}" in folder else f"{folder}/{split}".rstrip("/")


def coco_file(labels: str, split: str, root: Path) -> str:
    """Return a split's COCO file: `labels` itself, or SPLIT.json, instances_SPLIT.json or the only one in it."""
    if labels.endswith(".json"):
        return labels.replace("{split}", split)
    for name in (f"{split}.json", f"instances_{split}.json", f"instances_{split}2017.json"):
        if (root / labels / name).is_file():
            return f"{labels}/{name}"
    return within(labels, split)


def data_problems(data: DataKeys) -> Iterator[Problem]:
    """Yield contradictions between the classes and the keys that refer to them."""
    count, has_names = len(data.classes), data.label_format is not None
    repeated = [name for name, times in Counter(data.classes).items() if times > 1]
    if repeated:
        text = f"`data.classes` names '{repeated[0]}' twice; to join two label values: label_map"
        yield Problem("data.classes", text)
    if data.palette is not None and len(data.palette) != count:
        text = f"`data.palette` must be {count} colours [red, green, blue], one a class, not {len(data.palette)}"
        yield Problem("data.palette", text)
    if not has_names and any(isinstance(value, str) for value in data.ignore or ()):
        yield Problem("data.ignore", f"`data.ignore` must be a list of label values, not {data.ignore!r}")
    for old, new in (data.label_map or {}).items():
        is_class = 0 <= new < count or new == IGNORED if isinstance(new, int) else has_names and new in data.classes
        if not is_class or not (has_names or str(old).isdecimal()):
            yield Problem(
                "data.label_map",
                f"`data.label_map` must map label values to classes 0 to {count - 1} ({IGNORED}: ignored), such as "
                f"{{7: 1}}, not {old!r} to {new!r}",
            )
            return
