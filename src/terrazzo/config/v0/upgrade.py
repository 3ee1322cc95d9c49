"""Upgrade the 0.x vocabulary to that of 1.x; nothing else in terrazzo knows that 0.x exists."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import Section, convert, plain
from terrazzo.config.sections import SECTIONS
from terrazzo.config.v0.data import Upgraded, upgrade_data
from terrazzo.config.v0.pipeline import (
    is_pipeline,
    join_preprocessors,
    origin_of,
    section_at,
    upgrade_pipeline,
    upgrade_test_pipeline,
)
from terrazzo.config.v0.training import (
    Length,
    sort_hooks,
    upgrade_checkpoint,
    upgrade_evaluation,
    upgrade_log,
    upgrade_optimizer,
    upgrade_schedule,
)
from terrazzo.errors import UserError, nearest

# The meaning of a type in 0.x, as arguments of our class: type -> (needed argument or None, arguments)
MODEL_MEANINGS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "VisionTransformer": (None, {"patch_bias": True}),
    "DiceLoss": (None, {"formula": "per_class"}),
    "CrossEntropyLoss": ("class_weight", {"weight_average": "pixels"}),
}
SCOPES = {"mmcls.": "mmpretrain."}

# Top-level sections of 0.x -> what they are now
RENAMED = {
    "data": "train_dataloader, val_dataloader, test_dataloader",
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper",
    "fp16": "optim_wrapper.type=AmpOptimWrapper",
    "lr_config": "param_scheduler",
    "runner": "train_cfg",
    "total_iters": "train_cfg.max_iters",
    "total_epochs": "train_cfg.max_epochs",
    "train_cfg": "model.train_cfg",
    "test_cfg": "model.test_cfg",
    "evaluation": "val_evaluator, train_cfg.val_interval",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger",
    "img_norm_cfg": "model.data_preprocessor",
    "dist_params": "env_cfg.dist_cfg",
    "cudnn_benchmark": "env_cfg.cudnn_benchmark",
    "mp_start_method": "env_cfg.mp_cfg",
    "opencv_num_threads": "env_cfg.mp_cfg",
    "seed": "randomness.seed",
    "deterministic": "randomness.deterministic",
    "resume_from": "load_from, resume=True",
    "auto_resume": "resume",
}
# Nested keys -> what they are now; listed in the same warning
RENAMED_INSIDE = {
    "samples_per_gpu": "batch_size",
    "workers_per_gpu": "num_workers",
    "img_dir": "data_prefix.img_path",
    "ann_dir": "data_prefix.seg_map_path",
    "flip_ratio": "prob",
}
GONE = (
    "workflow",
    "gpu_ids",
    "gpus",
    "device",
    "diff_seed",
    "local_rank",
    "no_validate",
    "launcher",
    "momentum_config",
)
KEPT = (
    "model", "custom_hooks", "custom_imports", "log_level", "load_from", "work_dir", "find_unused_parameters",
    "default_scope", "resume",
)  # fmt: skip
OWN = ("data", "optimizer_config", "lr_config", "checkpoint_config", "evaluation", "log_config", "total_iters",
       "total_epochs", "runner", "dist_params", "cudnn_benchmark", "workflow")  # fmt: skip
NEWER = (
    "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator", "optim_wrapper",
    "param_scheduler", "default_hooks", "val_cfg", "env_cfg",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "default_scope": "mmseg",
    "log_level": "INFO",
    "vis_backends": [{"type": "LocalVisBackend"}],
    "tta_model": {"type": "SegTTAModel"},
}


def is_old(values: Mapping[str, Any]) -> bool:
    """Check for the 0.x vocabulary: sections that only 0.x had, and none that came later."""
    return any(name in values for name in OWN) and not any(name in values for name in NEWER)


def is_old_key(key: str, values: Mapping[str, Any]) -> bool:
    """Check for a dotted key of a 0.x config, rather than of its upgrade.

    Early files have a `train_cfg` and a `test_cfg` of the model at the top, where 1.x has those of the run.
    """
    section, _, inner = key.partition(".")
    if section in ("train_cfg", "test_cfg"):
        return section in values and inner.partition(".")[0] not in (SECTIONS[section] or ())
    return section in values or section in RENAMED or section in GONE or section == "custom_hooks"


def upgrade_config(values: Mapping[str, Any], path: str | Path | None = None) -> dict[str, Any]:
    """Return a 0.x config in the 1.x vocabulary; the argument stays as it is. One warning lists the new names.

    New keys keep the origins of the old ones. Raises UserError for an unknown key in a 0.x section.
    """
    old: Section = convert(dict(values) if not isinstance(values, dict) else values, Section)
    try:
        warn_about_names(old, path)
        upgraded = upgraded_sections(old)
    except UserError as problem:
        raise UserError(f"{path}: {problem}" if path else str(problem)) from None
    return upgraded if isinstance(values, Section) else plain(upgraded)


def upgraded_sections(old: Section) -> Section:
    """Every section of the new config."""
    hooks = sort_hooks(old)
    length = Length(old)
    upgraded = upgrade_data(old.get("data") or {}, length.by_epoch)
    preprocessor = join_preprocessors(upgraded.for_training, upgraded.for_test)
    new = variables(old, upgraded)
    if "model" in old:
        new.put("model", whole_model(old, preprocessor, upgraded), origin_of(old, "model"))
    new.absorb(upgraded.sections)
    if upgraded.augmented:
        new.put("tta_pipeline", upgraded.augmented, origin_of(old, "data"))
    new.absorb(DEFAULTS)
    new["vis_backends"] = plain(DEFAULTS["vis_backends"])
    for name in KEPT:
        if name in old and name not in ("model", "custom_hooks"):
            new.put(name, old[name], origin_of(old, name))
    if hooks:
        new.put("custom_hooks", hooks, origin_of(old, "custom_hooks"))
    if new.get("custom_imports"):
        new["custom_imports"]["imports"] = new_imports(new["custom_imports"].get("imports"))
    add_run(old, new, length)
    add_environment(old, new, length)
    for name, value in old.items():  # sections that 0.x did not have
        if name in SECTIONS and name not in {*new, *RENAMED, *GONE, *KEPT}:
            new.put(name, value, origin_of(old, name))
    return new


def variables(old: Section, upgraded: Upgraded) -> Section:
    """The file's own variables; pipelines among them are upgraded, the rest stays as it is."""
    new = Section()
    known = {*RENAMED, *GONE, *KEPT}
    for name, value in old.items():
        if name in known or name in SECTIONS:
            continue
        if difflib.get_close_matches(name, sorted(known), 1, cutoff=0.87):
            warnings.warn(f"the config's top-level name '{name}' is taken as a variable{nearest(name, known, 1)}")
        if is_pipeline(value) and name.startswith("train"):
            value, _ = upgrade_pipeline(value, name)
        elif is_pipeline(value) and name.startswith(("test", "val")):
            value, _, _ = upgrade_test_pipeline(value, name, upgraded.annotations)
        new.put(name, value, origin_of(old, name))
    return new


def whole_model(old: Section, preprocessor: Section, upgraded: Upgraded) -> Section:
    """The model with its preprocessing, and with the `train_cfg` and `test_cfg` that early files had beside it."""
    model = upgrade_model(old["model"])
    whole = Section()
    for key in model:
        whole.put(key, model[key], origin_of(model, key))
        if key == "type" and (upgraded.for_training or upgraded.for_test):
            whole.put("data_preprocessor", preprocessor, origin_of(preprocessor, "type"))
    if "data_preprocessor" in model:  # by an override
        whole.put(
            "data_preprocessor", merge(preprocessor, model["data_preprocessor"]), origin_of(model, "data_preprocessor")
        )
    own = (model.get("backbone") or {}).get("init_cfg") or {}
    if own.get("type") == "Pretrained" and "pretrained" in whole:
        del whole["pretrained"]  # inherited with another backbone: a file that set both meant the backbone's own
    for key in ("train_cfg", "test_cfg"):
        if old.get(key) is not None and key not in model:
            whole.put(key, old[key], origin_of(old, key))
    return whole


def upgrade_model(spec: Any) -> Any:
    """Return a 0.x model section in the 1.x vocabulary, with differences in meaning written out; the argument stays."""
    if isinstance(spec, (list, tuple)):
        return type(spec)(upgrade_model(item) for item in spec)
    if not isinstance(spec, dict):
        return spec
    upgraded = Section()
    for key, value in spec.items():
        upgraded.put(key, upgrade_model(value), origin_of(spec, key))
    kind = upgraded.get("type")
    if isinstance(kind, str):
        for old, new in SCOPES.items():
            if kind.startswith(old):
                upgraded["type"] = new + kind.removeprefix(old)
        needed, meaning = MODEL_MEANINGS.get(kind, (None, {}))
        for key, value in meaning.items():
            if key not in upgraded and (needed is None or upgraded.get(needed) is not None):
                upgraded.put(key, value, origin_of(spec, needed or "type"))
    return upgraded


def new_imports(imports: Any) -> Any:
    """Names of modules, with those of packages that were renamed."""
    if isinstance(imports, (list, tuple)):
        return [new_imports(name) for name in imports]
    return str(imports).replace("mmcls", "mmpretrain")


def add_run(old: Section, new: Section, length: Length) -> None:
    """Optimizer, schedule, length, validation, checkpoints and logs."""
    if isinstance(old.get("optimizer"), dict):
        new.put("optim_wrapper", upgrade_optimizer(old), origin_of(old, "optimizer"))
    if old.get("lr_config"):
        schedule = upgrade_schedule(old["lr_config"], length)
        new.put("param_scheduler", schedule, origin_of(old, "lr_config"))
    evaluation = old.get("evaluation") or Section()
    saving = old.get("checkpoint_config") or Section()
    loop = length.loop()
    checkpoint = upgrade_checkpoint(saving, length, origin_of(old, "checkpoint_config"))
    evaluator = upgrade_evaluation(evaluation, loop, checkpoint)
    if length.count is not None:
        usual = saving.get("interval") or (1 if length.by_epoch else 1000)
        loop.setdefault("val_interval", 1 if evaluation else usual)
        new.put("train_cfg", loop, length.origin)
    for split, kind in (("val", "ValLoop"), ("test", "TestLoop")):
        if f"{split}_dataloader" in new:
            origin = origin_of(old, "evaluation") or origin_of(old, "data")
            new.put(f"{split}_evaluator", convert(evaluator, Section), origin)
            new.put(f"{split}_cfg", section_at(origin, type=kind), origin)
    origin = origin_of(old, "log_config")
    logger = upgrade_log(old.get("log_config") or {}, length, new)
    hooks = Section(
        timer={"type": "IterTimerHook"},
        logger=logger,
        param_scheduler={"type": "ParamSchedulerHook"},
        checkpoint=checkpoint,
        sampler_seed={"type": "DistSamplerSeedHook"},
        visualization={"type": "SegVisualizationHook"},
    )
    new.put("default_hooks", hooks, origin)
    new.put("log_processor", section_at(origin, by_epoch=length.by_epoch), origin)


def add_environment(old: Section, new: Section, length: Length) -> None:
    """Devices, seeds, and the state that a run starts from."""
    processes = section_at(origin_of(old, "mp_start_method"), mp_start_method=old.get("mp_start_method", "fork"))
    processes.put("opencv_num_threads", old.get("opencv_num_threads", 0), origin_of(old, "opencv_num_threads"))
    environment = section_at(origin_of(old, "cudnn_benchmark"), cudnn_benchmark=bool(old.get("cudnn_benchmark", False)))
    environment.put("mp_cfg", processes, origin_of(old, "mp_start_method"))
    environment.put("dist_cfg", old.get("dist_params") or {"backend": "nccl"}, origin_of(old, "dist_params"))
    new.put("env_cfg", environment, origin_of(old, "dist_params"))
    new.put("visualizer", Section(type="SegLocalVisualizer", vis_backends=new["vis_backends"], name="visualizer"), None)
    randomness = Section()
    for key in ("seed", "deterministic"):
        if old.get(key) is not None:
            randomness.put(key, old[key], origin_of(old, key))
    if randomness:
        new.put("randomness", randomness, origin_of(old, "seed") or origin_of(old, "deterministic"))
    new.setdefault("load_from", None)
    new.setdefault("resume", bool(old.get("auto_resume")))
    if old.get("resume_from"):
        new.put("load_from", old["resume_from"], origin_of(old, "resume_from"))
        new.put("resume", True, origin_of(old, "resume_from"))
    if any(step[0] != "train" for step in old.get("workflow") or ()):
        warnings.warn("workflow: only training is run; train_cfg.val_interval sets the validation")
    if old.get("momentum_config"):
        warnings.warn("momentum_config is skipped: the momentum stays at the optimizer's value")


def warn_about_names(old: Section, path: str | Path | None) -> None:
    """Warn once about everything that has a new name."""
    if not is_old(old) and not any(name in old for name in RENAMED):
        return
    inside = {key for name in ("data", "train_pipeline") for key in keys_in(old.get(name))}
    renamed = [f"{name} -> {new}" for name, new in RENAMED.items() if old.get(name) is not None]
    renamed += [f"{name} -> {new}" for name, new in RENAMED_INSIDE.items() if name in inside]
    hint = f"; `terrazzo config upgrade {path}` writes the new file" if path else ""
    warnings.warn(f"{path or 'the config'} is in the 0.x vocabulary and was upgraded: {'; '.join(renamed)}{hint}")


def keys_in(value: Any) -> set[str]:
    """Every key inside a value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, (list, tuple)) else set()
