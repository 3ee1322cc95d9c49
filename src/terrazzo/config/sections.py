"""The sections of a config in the 1.x vocabulary, their keys, and checks of both."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from terrazzo.errors import UserError, nearest

# sections and settings at the top level of a config in the 1.x vocabulary, and their keys where they are fixed
SECTIONS: dict[str, tuple[str, ...] | None] = dict.fromkeys((
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator",
    "test_evaluator", "optim_wrapper", "param_scheduler", "train_cfg", "val_cfg", "test_cfg", "default_hooks",
    "custom_hooks", "env_cfg", "randomness", "visualizer", "vis_backends", "track", "val_pictures", "log_processor",
    "log_level", "load_from", "resume", "work_dir", "tta_model", "tta_pipeline", "default_scope", "custom_imports",
    "auto_scale_lr", "launcher", "find_unused_parameters", "cfg", "runner_type", "experiment_name", "compile",
    "channels_last", "strategy", "activation_checkpointing", "freeze",
)) | {
    "optim_wrapper": (
        "type", "optimizer", "clip_grad", "accumulative_counts", "paramwise_cfg", "constructor", "dtype", "loss_scale",
        "use_fsdp"),
    "train_cfg": (
        "type", "max_iters", "max_epochs", "val_interval", "val_begin", "by_epoch", "dynamic_intervals", "time_limit",
        "skip_nan"),
    "val_cfg": ("type", "fp16"),
    "test_cfg": ("type", "fp16"),
    "randomness": ("seed", "deterministic", "diff_rank_seed"),
    "auto_scale_lr": ("enable", "base_batch_size"),
}  # fmt: skip
VARIABLES = ("train_pipeline", "val_pipeline", "test_pipeline")  # names that nearly every file gives its own values
LOADER_KEYS = (
    "batch_size", "num_workers", "persistent_workers", "sampler", "dataset", "drop_last", "pin_memory",
    "prefetch_factor", "collate_fn", "batch_sampler", "timeout", "worker_init_fn", "num_batch_per_epoch",
)  # fmt: skip
CHECKPOINT_KEYS = (
    "type", "interval", "by_epoch", "save_best", "rule", "max_keep_ckpts", "save_last", "save_optimizer",
    "save_param_scheduler", "out_dir", "published_keys", "save_begin", "greater_keys", "less_keys", "file_client_args",
    "backend_args", "filename_tmpl",
)  # fmt: skip


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
}  # fmt: skip


def check_sections(config: Mapping[str, Any]) -> None:
    """Warn about a top-level name that is almost a section's. Raises UserError for an unknown key inside a section."""
    for name in config:
        if name not in (*SECTIONS, *VARIABLES) and (close := nearest(name, SECTIONS, 1)) and is_typo(name, SECTIONS):
            warnings.warn(f"the config's top-level name '{name}' is taken as a variable{close}")
    for name, keys in SECTIONS.items():
        section = config.get(name)
        if keys is not None and isinstance(section, Mapping):
            check_keys(section, keys, name)


def check_keys(section: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UserError for a key that a section does not have."""
    known = list(known)
    for key in section:
        if key not in known:
            raise UserError(f"{where} has no key '{key}'{nearest(str(key), known)}")


def is_typo(name: str, known: Iterable[str]) -> bool:
    """Check for a name that is almost a known one."""
    return bool(difflib.get_close_matches(name, list(known), 1, cutoff=0.87))


def whole_number(section: Mapping[str, Any], key: str, default: int, where: str, least: int = 1) -> int:
    """Read a setting that is an integer of at least `least`; None means the default. Raises UserError otherwise."""
    value = section.get(key)
    if value is None:
        return default
    is_whole = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
    if not is_whole or value < least:
        name = f"{where}.{key}".lstrip(".")
        raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def warn_about_hook(section: str, kind: str) -> None:
    """Warn that a hook is not run, and name what replaces it."""
    instead = HOOKS.get(kind, "no setting replaces this one")
    warnings.warn(f"{section}: '{kind}' is not run, for terrazzo has no hooks: {instead}")
