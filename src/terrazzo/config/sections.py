"""The sections of a config in the 1.x vocabulary, their keys, and checks of both."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.arguments import check_keys, located, shown
from terrazzo.errors import UserError, nearest

ACTS: Any = object()  # the key does something here
ANY: Any = object()  # its value makes no difference to results


@dataclass(frozen=True)
class Only:
    """A key with one meaning here: other values than these change nothing, and `instead` says what does."""

    values: tuple[Any, ...]
    instead: str


LISTS = ("param_scheduler", "custom_hooks", "vis_backends", "tta_pipeline", "val_evaluator", "test_evaluator")
# sections and settings at the top level of a config in the 1.x vocabulary
SECTIONS = (
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator",
    "test_evaluator", "optim_wrapper", "param_scheduler", "train_cfg", "val_cfg", "test_cfg", "default_hooks",
    "custom_hooks", "env_cfg", "randomness", "visualizer", "vis_backends", "track", "val_pictures", "log_processor",
    "log_level", "load_from", "resume", "work_dir", "tta_model", "tta_pipeline", "default_scope", "custom_imports",
    "auto_scale_lr", "launcher", "find_unused_parameters", "cfg", "runner_type", "experiment_name", "compile",
    "channels_last", "strategy", "activation_checkpointing", "freeze", "finetune", "teacher", "model_wrapper_cfg",
    "sync_bn", "efficient_conv_bn_eval",
)  # fmt: skip
FILES = dict.fromkeys(("file_client_args", "backend_args"), Only((None,), "files are written to the file system"))
LOOP = {"type": ACTS, "fp16": Only((False,), "the precision of training: optim_wrapper.type=AmpOptimWrapper")}
DATALOADER = {
    **dict.fromkeys(("batch_size", "num_workers", "sampler", "dataset", "drop_last"), ACTS),
    **dict.fromkeys(("persistent_workers", "pin_memory", "prefetch_factor", "timeout"), ANY),
    "collate_fn": Only(
        (None, *({"type": name} for name in ("pseudo_collate", "default_collate"))), "samples are stacked as they are"
    ),
    "batch_sampler": Only((None, {"type": "BatchSampler"}), "batches are batch_size samples of the sampler"),
    "worker_init_fn": Only((None, {"type": "worker_init_fn"}), "workers are seeded by randomness.seed"),
    "num_batch_per_epoch": Only((None,), "dataset.indices limits the images"),
}
# section -> its keys, and what each does
KEYS: dict[str, dict[str, Any]] = {
    "optim_wrapper": {
        **dict.fromkeys(
            ("type", "optimizer", "clip_grad", "accumulative_counts", "paramwise_cfg", "constructor", "dtype"), ACTS
        ),
        "loss_scale": ANY,  # gradients are divided by it again; it adapts by itself
        "use_fsdp": Only((False,), "strategy=dict(type='FSDPStrategy')"),
    },
    "train_cfg": dict.fromkeys(
        ("type", "max_iters", "max_epochs", "val_interval", "val_begin", "by_epoch", "dynamic_intervals", "time_limit",
         "skip_nan"), ACTS),
    "val_cfg": LOOP,
    "test_cfg": LOOP,
    **{f"{split}_dataloader": DATALOADER for split in ("train", "val", "test")},
    "randomness": {"seed": ACTS, "deterministic": ACTS, "diff_rank_seed": ANY},
    "auto_scale_lr": dict.fromkeys(("enable", "base_batch_size"), ACTS),
    "env_cfg": {"cudnn_benchmark": ACTS, **dict.fromkeys(("mp_cfg", "dist_cfg", "resource_limit"), ANY)},
    "log_processor": {
        **dict.fromkeys(("type", "window_size", "by_epoch", "num_digits", "log_with_hierarchy", "mean_pattern"), ANY),
        "custom_cfg": Only((None, []), "default_hooks.logger.interval is the window of the logged means"),
    },
    "visualizer": {
        "vis_backends": ACTS,
        **dict.fromkeys(
            ("type", "name", "save_dir", "alpha", "image", "classes", "palette", "dataset_name", "with_labels"), ANY)
    },
    "tta_model": {"type": ACTS, "module": ANY, "data_preprocessor": ANY},
    "model_wrapper_cfg": {
        "find_unused_parameters": ACTS,
        **dict.fromkeys(("type", "broadcast_buffers", "detect_anomalous_params", "static_graph"), ANY),
    },
    "default_hooks.checkpoint": {
        **dict.fromkeys(
            ("interval", "by_epoch", "save_best", "rule", "max_keep_ckpts", "greater_keys", "less_keys"), ACTS),
        **dict.fromkeys(("type", "published_keys", "filename_tmpl"), ANY),
        **dict.fromkeys(
            ("save_last", "save_optimizer", "save_param_scheduler"), Only((True,), "resuming needs the state")),
        "save_begin": Only((0,), "`interval` counts from the start"),
        "out_dir": Only((None,), "work_dir"),
        **FILES,
    },
    "default_hooks.logger": {
        "interval": ACTS,
        **dict.fromkeys(("type", "log_metric_by_epoch", "ignore_last", "interval_exp_name", "out_suffix"), ANY),
        "keep_local": Only((True,), "log.txt is always written"),
        "out_dir": Only((None,), "work_dir"),
        **FILES,
    },
    "default_hooks.visualization": {
        **dict.fromkeys(("type", "draw", "interval", "wait_time"), ANY),  # val_pictures are painted at each validation
        "show": Only((False,), "`val_pictures` sets how many predictions each validation paints"),
        **FILES,
    },
    "custom_hooks.EMAHook": {
        **dict.fromkeys(("type", "ema_type", "momentum", "begin_iter", "begin_epoch"), ACTS),
        **dict.fromkeys(("strict_load", "priority", "device", "update_buffers"), ANY),
        "interval": Only((1,), "the average follows every step"),
        "gamma": Only((100,), "`momentum` is constant"),
    },
    "custom_hooks.EarlyStoppingHook": {
        **dict.fromkeys(("type", "monitor", "rule", "min_delta", "patience"), ACTS),
        **dict.fromkeys(("strict", "check_finite", "priority"), ANY),
        "stopping_threshold": Only((None,), "`patience` and `min_delta` end a run"),
    },
}  # fmt: skip
SEEDED = Only((None,), "randomness.seed")
PLAIN = {"type": ACTS, "shuffle": ACTS, "seed": SEEDED, "round_up": ANY}
RARE = {"type": ACTS, "shuffle": ACTS, "temperature": ACTS, "seed": SEEDED}
SAMPLERS = {"DefaultSampler": PLAIN, "InfiniteSampler": PLAIN, "RareClassSampler": RARE, "rare-class": RARE}
# hooks of `default_hooks`; others there are as in `custom_hooks`
DEFAULT_HOOKS = ("runtime_info", "timer", "logger", "param_scheduler", "checkpoint", "sampler_seed", "visualization")
# bounds of numbers that cost memory, far above what is useful
MAX_BATCH = 65536
MAX_PICTURES = 1000
MAX_WORKERS = 1024
VARIABLES = ("train_pipeline", "val_pipeline", "test_pipeline")  # names that nearly every file gives its own values
LOOPS = {
    "train_cfg": ("IterBasedTrainLoop", "EpochBasedTrainLoop"), "val_cfg": ("ValLoop",), "test_cfg": ("TestLoop",),
}  # fmt: skip
# parts of a run of which no class of a user's is taken, and what takes its place
OF_ONES_OWN = {
    "loops": "write what one does around a step as a hook (custom_hooks), and with a batch as the model's loss",
    "schedules": "list curves with their begin and end, or set optimizer.param_groups in a hook's before_train_iter",
    "samplers": "choose images by a data set's indices, RepeatDataset or own load_data_list, or use RareClassSampler",
    "optimizer wrappers": "set accumulative_counts, clip_grad and AmpOptimWrapper, or register an optimizer",
}
# settings at the top level that change nothing unless they have another value
FLAGS = {
    "sync_bn": Only((None, False), "norm_cfg=dict(type='SyncBN')"),
    "efficient_conv_bn_eval": Only((None, False, []), "no setting replaces it"),
    "compile": Only((None, False, True), "it is True or False"),
    "activation_checkpointing": Only((None, False, True), "it is True or False"),
}


# Hooks that are not run, and what replaces each
ALWAYS = "its work is always done"
HOOKS = dict.fromkeys(
    ("NumClassCheckHook", "CheckInvalidLossHook", "SyncBuffersHook", "IterTimerHook", "DistSamplerSeedHook",
     "ParamSchedulerHook", "RuntimeInfoHook", "LoggerHook", "TextLoggerHook", "PrepareTTAHook"), ALWAYS
) | {
    "EmptyCacheHook": "memory is freed automatically",
    "ProfilerHook": "`terrazzo train --profile` reports where the time goes",
    "NPUProfilerHook": "`terrazzo train --profile` reports where the time goes",
    "SegVisualizationHook": "`val_pictures` sets how many predictions each validation paints",
    "CheckpointHook": "configure it as default_hooks.checkpoint",
}  # fmt: skip


def check_sections(config: Mapping[str, Any]) -> None:
    """Check the form of each section and its keys; warn about a top-level name that is almost a section's.

    Raises UserError for anything but a section, for an unknown key, and for a type of loop that is not run.
    """
    for name in config:
        if name not in (*SECTIONS, *VARIABLES) and (close := nearest(name, SECTIONS, 1)) and is_typo(name, SECTIONS):
            warnings.warn(f"the config's top-level name '{name}' is taken as a variable{close}")
    for name in ("model", "data_preprocessor", "default_hooks", *LISTS):
        value = config.get(name)
        parts = value if name in LISTS and isinstance(value, (list, tuple)) else [{} if value is None else value]
        if not all(isinstance(part, Mapping) for part in parts) and name != "vis_backends":
            form = "a section of keys, or a list of them" if name in LISTS else "a section of keys"
            raise UserError(located(config, name, f"{name} must be {form}, not {shown(value)}"))
    for name, keys in KEYS.items():
        if "." not in name and config.get(name) is not None:
            check_section(config[name], keys, name)
    for name, known in LOOPS.items():
        section = config.get(name) or {}
        kind = str(section.get("type", known[0])).rpartition(".")[2]
        if kind not in known:
            text = f"{name}: the loop '{kind}' is not run here, but {' or '.join(known)}{nearest(kind, known)}"
            raise UserError(located(section, "type", f"{text}; {instead('loops')}"))
    for name, only in FLAGS.items():
        check_value(config, name, only, name)


def instead(parts: str) -> str:
    """The advice where a config names a part of one's own that is not taken."""
    return f"{parts} of your own are not run: {OF_ONES_OWN[parts]}"


def check_section(section: Any, keys: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a key that a section does not have; warn about one whose value would change nothing."""
    check_keys(section, keys, where)
    for key in section:
        check_value(section, key, keys[key], f"{where}.{key}")


def check_value(section: Mapping[str, Any], key: str, does: Any, where: str) -> None:
    """Warn about a value that changes nothing here, and name what does."""
    value = section.get(key)
    value = list(value) if isinstance(value, tuple) else value
    if isinstance(does, Only) and key in section and value not in does.values:
        warnings.warn(located(section, key, f"{where}={shown(value)} has no effect here: {does.instead}"))


def is_typo(name: str, known: Iterable[str]) -> bool:
    """Check for a name that is almost a known one."""
    return bool(difflib.get_close_matches(name, list(known), 1, cutoff=0.87))


def whole_number(
    section: Mapping[str, Any], key: str, default: int, where: str, least: int = 1, most: int = 2**63 - 1
) -> int:
    """Read a setting that is an integer from `least` to `most`; None means the default. Raises UserError otherwise."""
    value = section.get(key)
    if value is None:
        return default
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63
    if not is_number or value != int(value) or not least <= value <= most:
        bounds = f"of at least {least}" if most == 2**63 - 1 else f"from {least} to {most}"
        raise wrong(section, key, where, f"a whole number {bounds}")
    return int(value)


def number(section: Mapping[str, Any], key: str, default: float, where: str) -> float:
    """Read a setting that is a finite number of at least 0; None means the default. Raises UserError otherwise."""
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise wrong(section, key, where, "a number of at least 0")
    return float(value)


def switch(section: Mapping[str, Any], key: str, where: str = "", default: bool = False) -> bool:
    """Read a setting that is True or False; None means the default. Raises UserError otherwise."""
    value = section.get(key)
    if value is not None and value not in (True, False):
        raise wrong(section, key, where, "True or False")
    return default if value is None else bool(value)


def path_setting(section: Mapping[str, Any], key: str) -> str | None:
    """Read a setting that is a path or a name; an empty one means None. Raises UserError otherwise."""
    value = section.get(key)
    if value is not None and not isinstance(value, (str, Path)):
        raise wrong(section, key, "", "a path")
    return str(value) if value else None


def wrong(section: Mapping[str, Any], key: str, where: str, expected: str) -> UserError:
    """The error about a setting's value, with its line."""
    name = f"{where}.{key}".lstrip(".")
    return UserError(located(section, key, f"{name} must be {expected}, not {shown(section[key])}"))


def warn_about_hook(section: str, kind: str) -> None:
    """Warn that a hook is not run, and name what replaces it."""
    instead = HOOKS.get(kind, "no setting replaces this one")
    warnings.warn(f"{section}: '{kind}' is not run, for terrazzo has no hooks: {instead}")
