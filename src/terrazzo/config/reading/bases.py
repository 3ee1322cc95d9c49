"""Base files of MMSegmentation, `mmseg::...`, from the recipe book, and files that hold a whole recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from terrazzo.config.reading.section import Section, convert
from terrazzo.errors import UserError
from terrazzo.recipes import RecipeRecord, info, names
from terrazzo.recipes.compose import expand_recipe, fresh, official_names, plan_of, settings
from terrazzo.recipes.words import Words

USUAL = "fcn_r50-d8"  # any model will do for the parts of a config that do not depend on it
RUNTIME = (
    "default_scope", "env_cfg", "vis_backends", "visualizer", "log_processor", "log_level", "load_from", "resume",
    "tta_model",
)  # fmt: skip
SCHEDULE = ("optim_wrapper", "param_scheduler", "train_cfg", "val_cfg", "test_cfg", "default_hooks")
DATA = (
    "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator", "tta_pipeline",
)  # fmt: skip
# file of `_base_/models` -> the model's words in recipe names, where they differ
MODELS = {
    **{name: f"{name}_fcn" for name in ("bisenetv2", "cgnet")},
    **{f"{head}_unet_s5-d16": f"unet-s5-d16_{head}" for head in ("deeplabv3", "fcn", "pspnet")},
    "lraspp_m-v3-d8": "mobilenet-v3-d8_lraspp",
    "segmenter_vit-b16_mask": "segmenter_vit-b_mask",
    **{f"setr_{head}": f"setr_vit-l_{head}" for head in ("mla", "naive", "pup")},
    "stdc": "stdc1",
    "twins_pcpvt-s_fpn": "twins_pcpvt-s_fpn_fpnhead",
    "twins_pcpvt-s_upernet": "twins_pcpvt-s_uperhead",
    "upernet_beit": "beit-base_upernet",
    "upernet_convnext": "convnext-base_upernet",
    "upernet_mae": "mae-base_upernet",
    "upernet_swin": "swin-tiny-patch4-window7-in1k-pre_upernet",
}
# file of `_base_/datasets` -> the data set's word in recipe names, where they differ
DATASETS = {
    "mapillary_v1_65": "mapillary_v1",
    "pascal_voc12_aug": "voc12aug",
    **{name: name.replace("_", "-") for name in ("chase_db1", "pascal_context", "pascal_context_59")},
}


def recipe_base(path: str) -> tuple[Section, RecipeRecord | None] | None:
    """The values of `mmseg::path` and the recipe that it is, if not a part of one; None if the book does not have it.

    They are in the 1.x vocabulary, unless the path names a recipe of 0.x.
    """
    parts = PurePosixPath(path)
    record = None
    try:
        if "_base_" in parts.parts:
            values = base_part(parts.parent.name, parts.stem)
        else:
            config, record = expand_recipe(parts.stem)
            values = variables(config) | config if "train_dataloader" in config else config
    except UserError:
        return None
    return None if values is None else (convert(values, Section, f"mmseg::{path}"), record)


def contained_recipe(name: str, values: Section) -> RecipeRecord | None:
    """The recipe of a file called `name`, if it is an official name and the file's values have all of that recipe."""
    if name not in official_names():
        return None
    try:
        config, record = expand_recipe(name, None if "train_dataloader" in values else "0.x")
    except UserError:
        return None
    return record if all(key in values and is_same(values[key], value) for key, value in config.items()) else None


def is_same(value: Any, other: Any) -> bool:
    """Compare two values; a tuple equals a list."""
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(is_same(item, other[key]) for key, item in value.items())
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(is_same, value, other))
    return bool(value == other)


def base_rate(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """The optimizer's type and learning rate, in either vocabulary."""
    wrapper = values.get("optim_wrapper")
    optimizer = wrapper.get("optimizer") if isinstance(wrapper, dict) else values.get("optimizer")
    return (optimizer.get("type"), optimizer.get("lr")) if isinstance(optimizer, dict) else (None, None)


def base_part(folder: str, name: str) -> dict[str, Any] | None:
    """The values of a file below `_base_`."""
    if folder == "_base_" and name == "default_runtime":
        return chosen(composed(), RUNTIME)
    if folder == "models":
        config = composed(MODELS.get(name, name))
        del config["data_preprocessor"]["size"], config["model"]["data_preprocessor"]["size"]
        known = variables(config)
        return chosen(known, ("norm_cfg",)) | chosen(config, ("data_preprocessor", "model"))
    if folder == "schedules" and (length := re.fullmatch(r"schedule_(\d{1,5})k", name)):
        config = composed(iterations=int(length[1]) * 1000)
        return {"optimizer": fresh(config["optim_wrapper"]["optimizer"])} | chosen(config, SCHEDULE)
    if folder == "datasets":
        config = composed(dataset=DATASETS.get(name, name))
        known = variables(config)
        del known["norm_cfg"], known["optimizer"]
        return known | chosen(config, DATA)
    return None


def composed(model: str = USUAL, dataset: str = "cityscapes", iterations: int | None = None) -> dict[str, Any]:
    """Compose a config of some parts. Raises UserError for an unknown one."""
    word, _, size = dataset.rpartition("_")
    crop = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if crop:
        side = int(crop[1]), int(crop[2])
    else:
        word = dataset
    if not any(item.dataset == word for item in map(info, names())):
        raise UserError(f"no recipe has the data set '{word}'")
    if not crop:
        side = next((item.crop for item in map(info, names()) if item.dataset == word), (0, 0))
    return fresh(settings(plan_of(Words("base", model, word, side, iterations=iterations))))


def variables(config: dict[str, Any]) -> dict[str, Any]:
    """The variables that an official file with this config defines beside its sections."""
    loader = config["train_dataloader"]["dataset"]
    while "dataset" in loader or "datasets" in loader:
        loader = loader["datasets"][0] if "datasets" in loader else loader["dataset"]
    preprocessor = config["data_preprocessor"]
    found = {
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "dataset_type": loader["type"],
        "data_root": loader["data_root"],
        "crop_size": tuple(preprocessor["size"]) if "size" in preprocessor else None,
        "train_pipeline": loader["pipeline"],
        "test_pipeline": config["val_dataloader"]["dataset"]["pipeline"],
        "optimizer": config["optim_wrapper"]["optimizer"],
    }
    return {name: fresh(value) if name != "crop_size" else value for name, value in found.items() if value is not None}


def chosen(config: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: config[key] for key in keys if key in config}
