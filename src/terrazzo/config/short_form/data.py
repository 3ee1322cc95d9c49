"""The short form's section `data` as data sets of the 1.x vocabulary, and its keys about images as their settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrazzo.config.short_form.messages import Problem
from terrazzo.system.remote import is_remote_path

if TYPE_CHECKING:
    from terrazzo.config.short_form.schema import DataKeys, ShortForm

KEPT = {
    "label_map": "label_map",
    "reduce_zero_label": "reduce_zero_label",
    "label_format": "label_format",
    "image_suffix": "img_suffix",
    "label_suffix": "seg_map_suffix",
    "cache": "cache",
    "unlabelled": "unlabelled",
}
INDEX_SUFFIXES = (".json", ".csv", ".gpkg", ".geojson", ".shp", ".fgb")  # of files with the labels of many images
IGNORED = 255
SHARDS = (".tar", ".parquet")  # of files with many images and their labels
RGB = 3
GREY = {"mean": [117.0], "std": [57.5]}  # ImageNet's, its colours weighted as a picture becomes grey


def dataset(data: DataKeys, split: str, path: Path | None) -> dict[str, Any]:
    """Return the data set of a split: `images/SPLIT` and `labels/SPLIT`, or what `data.SPLIT` names.

    That is a folder in both, a file of names or, for `val`, the share of the images to hold out for validation.
    """
    root = Path(data.root)
    is_address = is_remote_path(data.root)
    if path is not None and not root.is_absolute() and not is_address:
        root = path.parent / root
    section: dict[str, Any] = {
        "type": "BaseSegDataset",
        "data_root": data.root if is_address else str(root),
        "metainfo": {"classes": list(data.classes)},
        **files_of(data, split, root),
    }
    if data.palette:
        section["metainfo"]["palette"] = [list(colour) for colour in data.palette]
    if data.ignore is not None:
        section["ignore"] = list(data.ignore)
    if split != "train" and data.unlabelled == "teacher":
        data = data.model_copy(update={"unlabelled": "skip"})
    if data.windows is not None:
        section["windows"] = {"size": list(data.windows), "random": split == "train"}
    if data.exclude:
        section["exclude"] = list(data.exclude)
    return section | {name: value for key, name in KEPT.items() if (value := getattr(data, key)) is not None}


def files_of(data: DataKeys, split: str, root: Path) -> dict[str, Any]:
    """Return where a split's images and labels are below the root, and which of them it takes."""
    chosen, holdout = getattr(data, split) or split, {}
    share = data.val if isinstance(data.val, float) else None
    if (share or data.folds) and split != "test":
        rule = {"share": share or 1 / (data.folds or 1), "part": split}
        rule |= {"folds": data.folds, "fold": data.fold or 1} if data.folds else {}
        rule |= {"groups": data.groups} if data.groups else {}
        chosen, holdout = data.train or ("" if share else "train"), {"holdout": rule}
    if data.images.endswith(SHARDS):
        prefix = {"img_path": data.images.replace("{split}", chosen)}
        if data.labels != "labels":  # the name of a folder, by default
            prefix["seg_map_path"] = data.labels
        return {"type": "ShardedDataset", "data_prefix": prefix, **holdout}
    if Path(chosen).suffix:
        return {"ann_file": chosen, "data_prefix": {"img_path": data.images, "seg_map_path": data.labels}, **holdout}
    is_coco = (data.label_format.get("type") if isinstance(data.label_format, Mapping) else data.label_format) == "coco"
    labels = coco_file(data.labels, chosen, root) if is_coco else within(data.labels, chosen)
    if data.label_format is not None and data.labels.endswith(INDEX_SUFFIXES):
        labels = data.labels.replace("{split}", chosen)
    return {"data_prefix": {"img_path": within(data.images, chosen), "seg_map_path": labels}, **holdout}


def within(folder: str, split: str) -> str:
    """Return the folder of a split: with its name for `{split}` in that of all, else a folder below it."""
    return folder.replace("{split}", split) if "{split}" in folder else f"{folder}/{split}".rstrip("/")


def coco_file(labels: str, split: str, root: Path) -> str:
    """Return a split's COCO file in a folder: SPLIT.json, instances_SPLIT.json or the only one."""
    for name in (f"{split}.json", f"instances_{split}.json", f"instances_{split}2017.json"):
        if (root / labels / name).is_file():
            return f"{labels}/{name}"
    return within(labels, split)


def data_problems(data: DataKeys) -> Iterator[Problem]:
    """Yield contradictions between the classes and the keys that refer to them."""
    count, has_names = len(data.classes), data.label_format is not None
    for name in ("fold", "groups"):
        if getattr(data, name) and not data.folds and not (name == "groups" and isinstance(data.val, float)):
            ways = "`folds`" if name == "fold" else "`folds`, or of a share in `val`,"
            yield Problem(f"data.{name}", f"`data.{name}` says which images a split of {ways} holds out: add it")
    if data.folds and (data.folds < 2 or (data.fold or 1) > data.folds):
        yield Problem("data.folds", f"`data.folds` must be 2 or more, and `data.fold` one of 1 to {data.folds}")
    repeated = [name for name, times in Counter(data.classes).items() if times > 1]
    if repeated:
        text = f"`data.classes` names '{repeated[0]}' twice; to join two label values: label_map"
        yield Problem("data.classes", text)
    if data.windows is not None and data.groups:
        text = "`data.groups` are of whole images, and blocks of the ground are held out of scenes with `data.windows`"
        yield Problem("data.groups", f"{text}: leave one of them out")
    if data.windows is not None and data.cache is not None:
        yield Problem("data.cache", "`data.windows` are at random places in training, so no `data.cache` can keep them")
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


# Images: bands, number of channels, mean and standard deviation


@dataclass(frozen=True)
class ImageKind:
    """Settings for reading images (`loading`, of LoadImageFromFile), their channels, and their mean and std (`scale`).

    A picture has 8 bits, so that its brightness and colours can be varied.
    """

    channels: int = RGB
    loading: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, Any] = field(default_factory=dict)
    is_picture: bool = True


def bands_of(form: ShortForm) -> list[int] | None:
    """Return the bands to read; None for pictures, in RGB or grey."""
    if form.data.bands is None and form.in_channels not in (None, 1, RGB):
        return list(range(1, form.in_channels + 1))
    return form.data.bands


def channels_of(form: ShortForm) -> int:
    bands = bands_of(form)
    return form.in_channels or RGB if bands is None else len(bands)


def image_kind(form: ShortForm) -> ImageKind:
    """Return what `data.bands`, `in_channels`, `mean` and `std` specify: RGB, grey, or bands as stored."""
    bands, channels = bands_of(form), channels_of(form)
    scale = normalisation(form, channels)
    if bands is None:
        loading = {} if form.data.microns is None else {"microns": form.data.microns}
        return ImageKind(channels, loading | ({"color_type": "grayscale"} if channels == 1 else {}), scale)
    resolution = {} if form.data.resolution is None else {"resolution": form.data.resolution}
    return ImageKind(channels, {"bands": list(bands), **resolution}, scale, is_picture=False)


def image_problems(form: ShortForm) -> Iterator[Problem]:
    """Yield contradictions among the keys about images, and bands without mean and std."""
    bands, channels = form.data.bands, channels_of(form)
    if form.data.resolution is not None and bands_of(form) is None:
        text = "data.resolution is about GeoTIFF files: name the bands to read, data.bands, too"
        yield Problem("data.resolution", text)
    if form.data.microns is not None and bands_of(form) is not None:
        yield Problem("data.microns", "data.microns is about whole-slide images, which are RGB: omit data.bands")
    if bands is not None and form.in_channels not in (None, len(bands)):
        text = f"in_channels is {form.in_channels}, but data.bands names {len(bands)} bands; omit in_channels"
        yield Problem("in_channels", text)
    given = {key: value for key, value in (("mean", form.mean), ("std", form.std)) if value is not None}
    if set(map(str, given.values())) == {"none"}:
        return
    if len(given) == 1:
        (key,) = given
        yield Problem(key, f"`{key}` is given alone: `mean` and `std` go together")
    for key, value in given.items():
        if isinstance(value, str) or len(value) != channels:
            text = f"`{key}` must be a list of {channels} numbers, one for each channel, not {value!r}"
            yield Problem(key, text)
        elif key == "std" and min(value) <= 0:
            yield Problem(key, f"`std` must be above zero in each band, not {value!r}: omit a band of one value")
    if bands_of(form) is not None and not given:
        yield Problem(
            "data.bands" if bands is not None else "in_channels",
            "images of other kinds than 8-bit RGB need `mean` and `std`, a number for each band: `terrazzo data stats "
            "CONFIG` computes them (or `mean: none`, to train on the values as they are)",
        )


def normalisation(form: ShortForm, channels: int) -> dict[str, Any]:
    """Return `mean` and `std` of the preprocessor; empty where ImageNet's apply."""
    if "none" in (form.mean, form.std):
        return {"mean": None, "std": None}
    if form.mean is None or form.std is None:
        return dict(GREY) if channels == 1 else {}
    return {"mean": list(form.mean), "std": list(form.std)}


def set_in_channels(model: dict[str, Any], channels: int) -> None:
    """Make a model's backbone, and the one inside it, take images of `channels` channels."""
    if channels == RGB:
        return
    for key in ("backbone", "image_encoder"):
        if isinstance(model.get(key), dict):
            widen(model[key], channels)


def widen(backbone: dict[str, Any], channels: int) -> None:
    inner = backbone.get("backbone_cfg")
    if isinstance(inner, dict):
        widen(inner, channels)
    if not isinstance(inner, dict) or "in_channels" in backbone:
        backbone["in_channels"] = channels
