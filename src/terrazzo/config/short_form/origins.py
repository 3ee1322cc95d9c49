"""The origins of the keys of an expanded short form: the keys that set them, and these keys' lines."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from terrazzo.config.reading.section import Section, find_origin, lookup
from terrazzo.config.short_form.data import KEPT

# keys that the expanded config has under the same name
UNCHANGED = (
    "compile", "channels_last", "activation_checkpointing", "find_unused_parameters", "custom_imports", "track",
    "val_pictures", "freeze", "finetune", "load_from", "teacher",
)  # fmt: skip
LENGTH = ("iterations", "epochs")
SPLITS = {"train": ("data.train",), "val": ("data.val", "data.folds"), "test": ("data.test", "data.val", "data.folds")}
FILES = {"ann_file": (), "data_prefix.img_path": ("data.images",), "data_prefix.seg_map_path": ("data.labels",)}
DATASET = {
    "data_root": "root",
    "metainfo.classes": "classes",
    "metainfo.palette": "palette",
    "ignore": "ignore",
    "exclude": "exclude",
    "holdout.groups": "groups",
    "holdout.folds": "folds",
    "windows.size": "windows",
    "windows.random": "windows",
    **{name: key for key, name in KEPT.items()},
}
# pattern of an expanded key (steps and hooks by their type) -> keys that set it: of the first match, the first given
SOURCES: dict[str, tuple[str, ...]] = {
    "model.data_preprocessor.size": ("crop",),
    "model.data_preprocessor.mean": ("mean", "std", "in_channels"),
    "model.data_preprocessor.std": ("std", "mean", "in_channels"),
    "model.data_preprocessor*": (),
    "model.pretrained": ("pretrained",),
    "model.backbone*.init_cfg*": ("pretrained", "recipe"),
    "model.*.class_weight": ("class_weight", "recipe"),
    "model.backbone*.in_channels": ("in_channels", "data.bands", "recipe"),
    "model.image_encoder*.in_channels": ("in_channels", "data.bands", "recipe"),
    "model.*norm_cfg.momentum": (*LENGTH, "recipe"),
    "model.*num_classes": ("data.classes",),
    "model.*.vocabulary": ("data.classes",),
    "model.*": ("recipe", "model.head"),
    "*_dataloader.batch_size": ("batch",),
    "*_dataloader.num_workers": ("workers",),
    "train_dataloader.drop_last": LENGTH,
    "train_dataloader.sampler.type": ("rare_class_sampling", *LENGTH),
    "train_dataloader.sampler.temperature": ("rare_class_sampling",),
    **{f"*.dataset.{name}": (f"data.{key}",) for name, key in DATASET.items()},
    "*.dataset.holdout.fold": ("data.fold", "data.folds"),
    "*.dataset.holdout*": ("data.val", "data.folds"),
    **{
        f"{split}_dataloader.dataset.{name}": (*folder, *keys)
        for split, keys in SPLITS.items()
        for name, folder in FILES.items()
    },
    "*LoadImageFromFile.color_type": ("in_channels",),
    "*LoadImageFromFile.bands": ("data.bands", "in_channels"),
    "*LoadImageFromFile.resolution": ("data.resolution",),
    "*LoadImageFromFile.microns": ("data.microns",),
    "*LoadAnnotations.resolution": ("data.resolution",),
    "*pipeline.Resize.*": ("resize",),
    "*RandomResize.scale": ("resize",),
    "*RandomResize.ratio_range": ("ratio_range",),
    "*RandomCrop.crop_size": ("crop",),
    "*RandomCrop.rare_classes*": ("rare_class_crops",),
    "*PhotoMetricDistortion.*": ("photometric",),
    "optim_wrapper.type": ("amp",),
    "optim_wrapper.dtype": ("amp",),
    "optim_wrapper.optimizer.lr": ("lr", "recipe", "model.head"),
    "optim_wrapper.optimizer.*": ("recipe", "model.head"),
    **{f"param_scheduler.*.{key}": LENGTH for key in ("begin", "end", "by_epoch", "convert_to_iter_based")},
    "train_cfg.type": LENGTH,
    "train_cfg.max_iters": ("iterations",),
    "train_cfg.max_epochs": ("epochs",),
    "train_cfg.val_interval": ("val_interval", *LENGTH),
    **{f"train_cfg.{key}": (key,) for key in ("time_limit", "skip_nan")},
    "default_hooks.logger.interval": ("log_interval", *LENGTH),
    "default_hooks.checkpoint.interval": ("checkpoint_interval", "val_interval", *LENGTH),
    "default_hooks.checkpoint.by_epoch": LENGTH,
    **{f"randomness.{key}": (key,) for key in ("seed", "deterministic")},
    "strategy*": ("fsdp",),
    "custom_hooks.EMAHook.*": ("ema", "swa"),
    "custom_hooks.EarlyStoppingHook.*": ("early_stopping",),
    **{key: (key,) for key in UNCHANGED},
}


def with_origins(expanded: Any, written: Mapping[str, Any], path: str = "") -> Any:
    """Return a part of an expanded config whose keys have the line of the short form's key that sets them.

    Keys that have a line already keep it.
    """
    if isinstance(expanded, (list, tuple)):
        items = enumerate(expanded)
        return type(expanded)(with_origins(item, written, f"{path}.{step_name(item, index)}") for index, item in items)
    if not isinstance(expanded, Mapping):
        return expanded
    section = Section()
    for key, value in expanded.items():
        inner = f"{path}.{key}".lstrip(".")
        own = expanded.origin_of(key) if isinstance(expanded, Section) else None
        section.put(key, with_origins(value, written, inner), own or line_of(inner, written))
    return section


def step_name(item: Any, index: int | str) -> str:
    """Return how a list's item is called in a path: by its type, else by its index."""
    return str(item.get("type", index) if isinstance(item, Mapping) else index)


def line_of(path: str, written: Mapping[str, Any]) -> str | None:
    """Return the line of the first key given among those that set an expanded key."""
    return next(
        (find_origin(written, key, around=True) for key in sources(path) if lookup(written, key) is not None), None
    )


def sources(path: str) -> tuple[str, ...]:
    """Return the keys of the short form that set an expanded key, given with steps and hooks by their type."""
    return next((keys for pattern, keys in SOURCES.items() if fnmatchcase(path, pattern)), ())


def sources_of(expanded: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the keys of the short form that set a dotted key, given with the indices of steps and hooks."""
    parts = key.split(".")
    paths = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    pairs = zip(parts, paths, strict=True)
    return sources(
        ".".join(step_name(lookup(expanded, path), part) if part.isdecimal() else part for part, path in pairs)
    )
