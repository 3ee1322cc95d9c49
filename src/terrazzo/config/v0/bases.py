"""The base files of MMSegmentation 0.x, in its vocabulary, from the parts of the recipe book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrazzo.config.reading.bases import recipe_base
from terrazzo.config.reading.section import Section, convert

NORM: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
RUNTIME: dict[str, Any] = {
    "log_config": {"interval": 50, "hooks": [{"type": "TextLoggerHook", "by_epoch": False}]},
    "dist_params": {"backend": "nccl"},
    "log_level": "INFO",
    "load_from": None,
    "resume_from": None,
    "workflow": [("train", 1)],
    "cudnn_benchmark": True,
}
LATE = ("PackSegInputs", "Pad")  # steps that the preprocessing of 0.x has in another place


def older_base(path: str) -> Section | None:
    """The values of an official base file `_base_/.../name.py` in the 0.x vocabulary, or None for another path."""
    found = recipe_base(path)
    if found is None or "_base_" not in path:
        return None
    values = found[0]
    if "train_dataloader" in values:
        older = older_data(values)
    elif "model" in values:
        older = {key: value for key, value in values.items() if key != "data_preprocessor"}
        older["model"] = {key: value for key, value in values["model"].items() if key != "data_preprocessor"}
    else:
        older = older_schedule(values) if "optim_wrapper" in values else RUNTIME
    return convert(older, Section, f"mmseg::{path} of 0.x")


def older_schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    """Optimizer, learning rate, length, checkpoints and validation."""
    poly, length = values["param_scheduler"][0], values["train_cfg"]
    return {
        "optimizer": values["optim_wrapper"]["optimizer"],
        "optimizer_config": {},
        "lr_config": {"policy": "poly", "power": poly["power"], "min_lr": poly["eta_min"], "by_epoch": False},
        "runner": {"type": "IterBasedRunner", "max_iters": length["max_iters"]},
        "checkpoint_config": {"by_epoch": False, "interval": length["val_interval"]},
        "evaluation": {"interval": length["val_interval"], "metric": "mIoU", "pre_eval": True},
    }


def older_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Data sets and their pipelines, which normalise and pad."""
    loader, size = values["train_dataloader"], tuple(values["crop_size"])
    steps = [older_step(step) for step in values["train_pipeline"] if step["type"] not in LATE]
    bundle = [{"type": "DefaultFormatBundle"}, {"type": "Collect", "keys": ["img", "gt_semantic_seg"]}]
    pad = {"type": "Pad", "size": size, "pad_val": 0, "seg_pad_val": 255}
    train = [*steps, {"type": "Normalize", **NORM}, pad, *bundle]
    scale = next(tuple(step["scale"]) for step in values["test_pipeline"] if "scale" in step)
    views: list[dict[str, Any]] = [{"type": "Resize", "keep_ratio": True}, {"type": "RandomFlip"}]
    views += [{"type": "Normalize", **NORM}, {"type": "ImageToTensor", "keys": ["img"]}]
    views.append({"type": "Collect", "keys": ["img"]})
    test = [{"type": "LoadImageFromFile"},
            {"type": "MultiScaleFlipAug", "img_scale": scale, "flip": False, "transforms": views}]  # fmt: skip
    data = {"samples_per_gpu": loader["batch_size"], "workers_per_gpu": loader["num_workers"]}
    for split, pipeline in (("train", train), ("val", test), ("test", test)):
        data[split] = older_dataset(values[f"{split}_dataloader"]["dataset"], pipeline)
    facts = {key: values[key] for key in ("dataset_type", "data_root") if key in values}
    facts |= {"img_norm_cfg": NORM, "crop_size": size, "train_pipeline": train, "test_pipeline": test}
    return {**facts, "data": data}


def older_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """A transform under its name and with its arguments of 0.x."""
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in step.items()}
    if step["type"] in ("RandomResize", "Resize"):
        made = {"type": "Resize", "img_scale": made["scale"]}
        made |= {key: tuple(step[key]) for key in ("ratio_range",) if key in step}
    return made


def older_dataset(section: Mapping[str, Any], pipeline: list[Any]) -> dict[str, Any]:
    """A data set with its folders beside each other; those inside a wrapper too."""
    if "dataset" in section:
        return {**section, "dataset": older_dataset(section["dataset"], pipeline)}
    if "datasets" in section:
        return {**section, "datasets": [older_dataset(item, pipeline) for item in section["datasets"]]}
    made = {key: value for key, value in section.items() if key not in ("data_prefix", "ann_file", "pipeline")}
    prefix = section.get("data_prefix") or {}
    made |= {new: prefix[key] for key, new in (("img_path", "img_dir"), ("seg_map_path", "ann_dir")) if key in prefix}
    return {**made, **({"split": section["ann_file"]} if section.get("ann_file") else {}), "pipeline": pipeline}
