"""Upgrade the 0.x vocabulary to that of 1.x; nothing else in terrazzo knows that 0.x exists."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import Section, convert, plain
from terrazzo.config.sections import KEYS, SECTIONS, is_typo
from terrazzo.config.v0.data import Upgraded, upgrade_data
from terrazzo.config.v0.pipeline import (
    is_pipeline,
    join_preprocessors,
    upgrade_pipeline,
    upgrade_test_pipeline,
    upgrading,
)
from terrazzo.config.v0.training import (
    TRUSTED,
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
    "workflow", "gpu_ids", "gpus", "device", "diff_seed", "local_rank", "no_validate", "launcher", "momentum_config",
)  # fmt: skip
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
SECTION_KINDS: tuple[tuple[str, tuple[type, ...], tuple[str, ...]], ...] = (
    ("dict", (dict,), ("model", "data", "optimizer", "optimizer_config", "fp16", "lr_config", "runner", "evaluation",
                       "checkpoint_config", "log_config", "dist_params", "custom_imports")),
    ("list", (list, tuple), ("workflow", "custom_hooks")),
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "default_scope": "mmseg",
    "log_level": "INFO",
    "vis_backends": [{"type": "LocalVisBackend"}],
    "tta_model": {"type": "SegTTAModel"},
}


def is_old(values: Mapping[str, Any]) -> bool:
    """Check for the 0.x vocabulary: sections that only 0.x had, and none that came later."""
    return any(name in values for name in (*OWN, "optimizer")) and not any(name in values for name in NEWER)


def is_old_key(key: str, values: Mapping[str, Any]) -> bool:
    """Check for a dotted key of a 0.x config, rather than of its upgrade.

    Early files have a `train_cfg` and a `test_cfg` of the model at the top, where 1.x has those of the run.
    """
    section, _, inner = key.partition(".")
    if section in ("train_cfg", "test_cfg"):
        return section in values and inner.partition(".")[0] not in KEYS[section]
    return section in values or section in RENAMED or section in GONE or section == "custom_hooks"


def upgrade_config(values: Mapping[str, Any], path: str | Path | None = None, *, trust: bool = False) -> dict[str, Any]:
    """Return a 0.x config in the 1.x vocabulary; the argument stays as it is. One warning lists the new names.

    New keys keep the origins of the old ones. Raises UserError for an unknown key in a 0.x section.
    """
    old: Section = convert(dict(values) if not isinstance(values, dict) else values, Section)
    token = TRUSTED.set(trust)
    try:
        warn_about_names(old, path)
        upgraded = upgraded_sections(old)
    except UserError as problem:
        raise UserError(f"{path}: {problem}" if path else str(problem)) from None
    finally:
        TRUSTED.reset(token)
    return upgraded if isinstance(values, Section) else plain(upgraded)


def upgraded_sections(old: Section) -> Section:
    """Every section of the new config."""
    for name, kind, types in ((name, kind, types) for kind, types, names in SECTION_KINDS for name in names):
        if old.get(name) is not None and not isinstance(old[name], types):
            raise UserError(f"{old.origin_of(name) or name}: {name} is a {kind}, not {old[name]!r:.100}")

    # data and model
    hooks = sort_hooks(old)
    length = Length(old)
    upgraded = upgrade_data(old.get("data") or Section(), length.by_epoch)
    new = variables(old, upgraded)
    if "model" in old:
        with upgrading("model"):
            new.put("model", whole_model(old, upgraded), old.origin_of("model"))
    new.absorb(upgraded.sections)
    if upgraded.augmented:
        new.put("tta_pipeline", upgraded.augmented, old.origin_of("data"))

    # what both vocabularies have
    new.absorb(DEFAULTS)
    new["vis_backends"] = plain(DEFAULTS["vis_backends"])
    for name in KEPT:
        if name in old and name not in ("model", "custom_hooks"):
            new.take(old, name)
    if (runner := old.get("runner") or Section()).get("work_dir"):  # which it took rather than the file's
        new.take(runner, "work_dir")
    if hooks:
        new.put("custom_hooks", hooks, old.origin_of("custom_hooks"))
    if (new.get("custom_imports") or {}).get("imports"):
        new["custom_imports"]["imports"] = new_imports(new["custom_imports"].get("imports"))

    # the run, and sections that 0.x did not have
    add_run(old, new, length)
    add_environment(old, new)
    for name in old:
        if name in SECTIONS and name not in {*new, *RENAMED, *GONE, *KEPT}:
            new.take(old, name)
    return new


def variables(old: Section, upgraded: Upgraded) -> Section:
    """The file's own variables; pipelines among them are upgraded, the rest stays as it is."""
    new = Section()
    known = {*RENAMED, *GONE, *KEPT}
    for name, value in old.items():
        if name in known or name in SECTIONS:
            continue
        if is_typo(name, sorted(known)):
            warnings.warn(f"the config's top-level name '{name}' is taken as a variable{nearest(name, known, 1)}")
        if is_pipeline(value) and name.startswith("train"):
            value, _ = upgrade_pipeline(value, name)
        elif is_pipeline(value) and name.startswith(("test", "val")):
            value, _, _ = upgrade_test_pipeline(value, name, upgraded.annotations)
        new.put(name, value, old.origin_of(name))
    return new


def whole_model(old: Section, upgraded: Upgraded) -> Section:
    """The model with its preprocessing, and with the `train_cfg` and `test_cfg` that early files had beside it."""
    model, whole = upgrade_model(old["model"]), Section()
    preprocessor = join_preprocessors([*upgraded.for_training, *upgraded.for_test])
    for key in model:
        whole.take(model, key)
        if key == "type" and (upgraded.for_training or upgraded.for_test):
            whole.put("data_preprocessor", preprocessor, preprocessor.origin_of("mean"))
    if "data_preprocessor" in model:  # by an override
        merged = merge(preprocessor, model["data_preprocessor"])
        whole.put("data_preprocessor", merged, model.origin_of("data_preprocessor"))
    own = (model.get("backbone") or {}).get("init_cfg") or {}
    if own.get("type") == "Pretrained":
        whole.pop("pretrained", None)  # inherited with another backbone: a file that set both meant the backbone's own
    for key in ("train_cfg", "test_cfg"):
        if old.get(key) is not None and key not in model:
            whole.take(old, key)
    return whole


def upgrade_model(spec: Any) -> Any:
    """Return a 0.x model section in the 1.x vocabulary, with differences in meaning written out; the argument stays."""
    if isinstance(spec, (list, tuple)):
        return type(spec)(upgrade_model(item) for item in spec)
    if not isinstance(spec, dict):
        return spec
    upgraded = Section()
    upgraded.absorb(spec)
    upgraded |= {key: upgrade_model(value) for key, value in spec.items()}
    kind = upgraded.get("type")
    if isinstance(kind, str):
        if kind.startswith("mmcls."):  # a package that was renamed
            upgraded["type"] = kind.replace("mmcls.", "mmpretrain.", 1)
        needed, meaning = MODEL_MEANINGS.get(kind, (None, {}))
        for key, value in meaning.items():
            if key not in upgraded and (needed is None or upgraded.get(needed) is not None):
                upgraded.put(key, value, upgraded.origin_of(needed or "type"))
    return upgraded


def new_imports(imports: Any) -> Any:
    """Names of modules, with those of packages that were renamed."""
    if isinstance(imports, (list, tuple)):
        return [new_imports(name) for name in imports]
    return str(imports).replace("mmcls", "mmpretrain")


def add_run(old: Section, new: Section, length: Length) -> None:
    """Optimizer, schedule, length, validation, checkpoints and logs."""
    # optimizer and schedule
    if "optimizer" in old:
        with upgrading("optimizer"):
            new.put("optim_wrapper", upgrade_optimizer(old), old.origin_of("optimizer"))
    if old.get("lr_config"):
        with upgrading("lr_config"):
            new.put("param_scheduler", upgrade_schedule(old["lr_config"], length), old.origin_of("lr_config"))

    # length and validation
    evaluation = old.get("evaluation") or Section()
    saving = old.get("checkpoint_config") or Section()
    loop, checkpoint = length.loop(), upgrade_checkpoint(saving, length)
    with upgrading("evaluation"):
        evaluator = upgrade_evaluation(evaluation, loop, checkpoint)
    if length.count is not None:
        usual = saving.get("interval") or (1 if length.by_epoch else 1000)
        loop.setdefault("val_interval", 1 if evaluation else usual)
        new.put("train_cfg", loop, length.origin)
    origin = old.origin_of("evaluation") or old.origin_of("data")
    for split, kind in (("val", "ValLoop"), ("test", "TestLoop")):
        if f"{split}_dataloader" in new:
            new.put(f"{split}_evaluator", convert(evaluator, Section), origin)
            new.put(f"{split}_cfg", Section(type=kind), origin)

    # logs and checkpoints
    with upgrading("log_config"):
        logger = upgrade_log(old.get("log_config") or Section(), length, new)
    hooks = Section(
        timer={"type": "IterTimerHook"},
        logger=logger,
        param_scheduler={"type": "ParamSchedulerHook"},
        sampler_seed={"type": "DistSamplerSeedHook"},
        visualization={"type": "SegVisualizationHook"},
    )
    hooks.put("checkpoint", checkpoint, old.origin_of("checkpoint_config"))
    new.put("default_hooks", hooks, old.origin_of("log_config"))
    new.put("log_processor", Section(by_epoch=length.by_epoch), old.origin_of("log_config"))


def add_environment(old: Section, new: Section) -> None:
    """Devices, seeds, and the state that a run starts from."""
    processes = Section(mp_start_method="fork", opencv_num_threads=0)
    environment = Section(cudnn_benchmark=False, mp_cfg=processes, dist_cfg={"backend": "nccl"})
    for section, key, name in (
        (environment, "cudnn_benchmark", "cudnn_benchmark"),
        (environment, "dist_params", "dist_cfg"),
        (processes, "mp_start_method", "mp_start_method"),
        (processes, "opencv_num_threads", "opencv_num_threads"),
    ):
        if old.get(key) is not None:
            section.take(old, key, name)
    new.put("env_cfg", environment, old.origin_of("dist_params"))
    new["visualizer"] = Section(type="SegLocalVisualizer", vis_backends=new["vis_backends"], name="visualizer")
    for key in ("seed", "deterministic"):
        if old.get(key) is not None:
            new.take(old, key, f"randomness.{key}")
    new.setdefault("load_from", None)
    new.setdefault("resume", bool(old.get("auto_resume")))
    if old.get("resume_from"):
        new.take(old, "resume_from", "load_from")
        new.put("resume", True, old.origin_of("resume_from"))
    if any(not isinstance(step, (list, tuple)) or step[0] != "train" for step in old.get("workflow") or ()):
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
