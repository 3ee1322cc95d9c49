"""The typed form of a config, checked once; past it nothing reads the config's dicts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from terrazzo.arguments import check_keys, fits, located, shown
from terrazzo.config.custom_imports import check_custom
from terrazzo.config.datasets import DataTree, data_tree, folders
from terrazzo.config.duration import seconds
from terrazzo.config.evaluators import EvaluatorSettings, evaluator_settings
from terrazzo.config.ignored import drop_ignored
from terrazzo.config.monitoring import DEFAULT_PICTURES, WatchSettings, watch_settings
from terrazzo.config.sections import (
    DEFAULT_HOOKS,
    KEYS,
    MAX_BATCH,
    MAX_PICTURES,
    MAX_WORKERS,
    SAMPLERS,
    check_section,
    check_sections,
    instead,
    number,
    path_setting,
    switch,
    warn_about_hook,
    whole_number,
    wrong,
)
from terrazzo.config.teacher import TeacherSettings, teacher_settings
from terrazzo.errors import UserError, nearest
from terrazzo.registry import HOOKS

AMP_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}  # our names of the precisions, and those in configs
FINETUNING = ("full", "frozen", "lora")
AVERAGES = {
    "ExponentialMovingAverage": "ema",
    "ExpMomentumEMA": "ema",
    "MomentumAnnealingEMA": "ema",
    "StochasticWeightAverage": "swa",
}
# scores that are errors, not successes
LOWER_IS_BETTER = {"loss", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "ECE"}


@dataclass(frozen=True)
class LoaderSettings:
    """The source of samples, and how they are batched."""

    dataset: DataTree
    batch_size: int = 1
    num_workers: int = 0
    shuffle: bool = False
    drop_last: bool = False
    rare_classes: float | None = None  # temperature of rare-class sampling


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer, its schedule and its precision; `amp` is None, "bf16", "fp16" or "auto"."""

    optimizer: dict[str, Any]
    paramwise: dict[str, Any] | None = None
    constructor: str | None = None
    clip_grad: dict[str, Any] | None = None
    accumulate: int = 1
    amp: str | None = None
    schedule: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Averaging:
    """A second set of weights that follows the trained ones: "ema" by `momentum`, "swa" as their plain mean."""

    kind: str = "ema"
    momentum: float = 0.0002
    begin: int = 0  # in units of the run's length


@dataclass(frozen=True)
class Target:
    """A score that decides: its name in a validation's results, "IoU.road" for one class, "auto" for the first mean."""

    name: str = "auto"
    lower_is_better: bool = False
    key: str = "save_best"  # in the config


@dataclass(frozen=True)
class EarlyStopping:
    """The run ends after `patience` validations whose score is not better than the best by more than `min_delta`."""

    patience: int
    min_delta: float = 0.0
    target: Target = Target()


@dataclass(frozen=True)
class RunSettings:
    """The length of a run and its intervals, counted in `unit`, "step" or "epoch"."""

    length: int
    unit: str = "step"
    val_interval: int = 1
    val_begin: int = 1
    val_intervals: tuple[tuple[int, int], ...] = ()  # (begin, the interval from there on)
    log_interval: int = 50
    checkpoint_interval: int | None = 1  # None: only at the end
    checkpoint_unit: str = "step"
    keep_checkpoints: int | None = 2  # None: all
    best: Target = Target("mIoU")
    seed: int = 0
    deterministic: bool = False
    cudnn_benchmark: bool = False  # cuDNN tries its algorithms and takes the fastest
    averaging: Averaging | None = None
    early_stopping: EarlyStopping | None = None
    time_limit: float | None = None  # seconds of one session
    skip_nan: int = 0  # steps that may be skipped because their loss or gradient is not finite
    compile: bool = False
    channels_last: bool = False  # the order of the convolutions' weights in memory
    activation_checkpointing: bool = False
    shard: bool = False  # weights, gradients and moments among the devices (FSDP)
    find_unused_parameters: bool = False
    observers: tuple[Mapping[str, Any], ...] = ()  # registered hooks, which the loop tells what it does


@dataclass(frozen=True)
class Experiment:
    """One run, from data to metrics; the loaders are None where the config has none."""

    model: dict[str, Any]
    classes: tuple[str, ...]
    palette: list[list[int]]
    train: LoaderSettings | None
    val: LoaderSettings | None
    test: LoaderSettings | None
    val_evaluator: EvaluatorSettings
    test_evaluator: EvaluatorSettings
    optimizer: OptimizerSettings | None
    run: RunSettings | None
    load_from: str | None = None
    freeze: tuple[str, ...] = ()  # names of parts of the model that are not trained
    finetune: str = "full"  # what training changes of the backbone: one of FINETUNING
    teacher: TeacherSettings | None = None
    watch: WatchSettings = field(default_factory=WatchSettings)
    tta_pipeline: tuple[Any, ...] = ()  # the steps of test-time augmentation
    tta_model: str = "SegTTAModel"  # how its views are joined


def make_experiment(config: Mapping[str, Any]) -> Experiment:
    """Check a config in the 1.x vocabulary and return its typed form. Raises UserError that names the key at fault."""
    check_sections(config)
    check_custom(config)
    if "model" not in config:
        raise UserError("the config has no section `model`")
    config = drop_ignored(config)
    model = config["model"].copy()
    if not model.get("data_preprocessor") and config.get("data_preprocessor"):
        model["data_preprocessor"] = config["data_preprocessor"]
    loaders = {split: loader_settings(config, f"{split}_dataloader") for split in ("train", "val", "test")}
    classes, palette = class_names(loaders.values())
    return Experiment(
        model=model,
        classes=classes,
        palette=palette,
        **loaders,
        val_evaluator=evaluator_settings(config.get("val_evaluator"), "val_evaluator"),
        test_evaluator=evaluator_settings(config.get("test_evaluator"), "test_evaluator"),
        optimizer=optimizer_settings(config) if config.get("optim_wrapper") else None,
        run=run_settings(config) if config.get("train_cfg") else None,
        load_from=path_setting(config, "load_from"),
        freeze=part_names(config.get("freeze")),
        finetune=finetuning(config.get("finetune")),
        teacher=teacher_settings(config.get("teacher")),
        watch=watch_settings(config, whole_number(config, "val_pictures", DEFAULT_PICTURES, "", 0, MAX_PICTURES)),
        tta_pipeline=tuple(config.get("tta_pipeline") or ()),
        tta_model=str((config.get("tta_model") or {}).get("type", "SegTTAModel")),
    )


def part_names(value: Any) -> tuple[str, ...]:
    """Read `freeze`: one name of a part of the model, or several."""
    names = [value] if isinstance(value, str) else value or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"freeze must be a list of names of parts of the model, such as [backbone], not {value!r}")
    return tuple(names)


def finetuning(value: Any) -> str:
    """Read `finetune`."""
    if value not in (None, *FINETUNING):
        raise UserError(f"finetune must be one of {', '.join(FINETUNING)}, not {value!r}")
    return value or FINETUNING[0]


def loader_settings(config: Mapping[str, Any], name: str) -> LoaderSettings | None:
    """A `*_dataloader` section."""
    section = config.get(name)
    if not section:
        return None
    if "dataset" not in section:
        raise UserError(f"{name} has no `dataset`")
    sampler = section.get("sampler") or {}
    if isinstance(sampler, str):
        sampler = {"type": sampler}
    return LoaderSettings(
        dataset=data_tree(section["dataset"], f"{name}.dataset"),
        batch_size=whole_number(section, "batch_size", 1, name, 1, MAX_BATCH),
        num_workers=whole_number(section, "num_workers", 0, name, 0, MAX_WORKERS),
        drop_last=switch(section, "drop_last", name),
        rare_classes=rare_class_temperature(sampler, f"{name}.sampler"),
        shuffle=switch(sampler, "shuffle", f"{name}.sampler", default=True),
    )


def rare_class_temperature(sampler: Mapping[str, Any], where: str) -> float | None:
    """The temperature of a RareClassSampler (short: `rare-class`), 0.01 unless it is given; None for other samplers.

    Raises UserError for a sampler that there is not, and for an unknown key of one.
    """
    check_keys(sampler, sampler, where)
    kind = str(sampler.get("type", "DefaultSampler")).rpartition(".")[2]
    if kind not in SAMPLERS:
        text = f"{where}: no sampler is called '{kind}'{nearest(kind, SAMPLERS)}; {instead('samplers')}"
        raise UserError(located(sampler, "type", text))
    check_section(sampler, SAMPLERS[kind], where)
    if "temperature" not in SAMPLERS[kind]:
        return None
    temperature = sampler.get("temperature", 0.01)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or temperature <= 0:
        raise UserError(f"{where}.temperature must be a number above 0, such as 0.01, not {temperature!r}")
    return float(temperature)


def optimizer_settings(config: Mapping[str, Any]) -> OptimizerSettings:
    """Read `optim_wrapper` and `param_scheduler`."""
    section, where = config["optim_wrapper"], "optim_wrapper"
    optimizer = section.get("optimizer")
    if not isinstance(optimizer, Mapping):
        raise UserError(
            located(section, "optimizer", f"{where}.optimizer must be a section such as dict(type='SGD', lr=0.01)")
        )
    for key in ("paramwise_cfg", "clip_grad"):
        check_keys(section.get(key) or {}, section.get(key) or (), f"{where}.{key}")
    schedule: Any = config.get("param_scheduler") or []
    schedules: list[Any] = [schedule] if isinstance(schedule, Mapping) else list(schedule)
    return OptimizerSettings(
        optimizer=optimizer.copy(),  # type: ignore[attr-defined]
        paramwise=section.get("paramwise_cfg"),
        constructor=section.get("constructor"),
        clip_grad=section.get("clip_grad"),
        accumulate=whole_number(section, "accumulative_counts", 1, where),
        amp=precision(section),
        schedule=schedules,
    )


def precision(section: Mapping[str, Any]) -> str | None:
    """The mixed precision of `optim_wrapper`: None, "bf16", "fp16" or "auto". Raises UserError for another one."""
    kind, dtype = str(section.get("type", "OptimWrapper")).rpartition(".")[2], section.get("dtype")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        known = nearest(kind, ("OptimWrapper", "AmpOptimWrapper"))
        text = f"optim_wrapper: there is no '{kind}' here{known}; {instead('optimizer wrappers')}"
        raise UserError(located(section, "type", text))
    names = {None: "auto"} | {dtype: name for name, dtype in AMP_DTYPES.items()}
    if dtype not in names:
        text = f"optim_wrapper.dtype must be {' or '.join(AMP_DTYPES.values())}, not {shown(dtype)}"
        raise UserError(located(section, "dtype", text))
    if kind == "OptimWrapper" and dtype is not None:
        text = "optim_wrapper.dtype is that of type='AmpOptimWrapper'; an OptimWrapper computes in float32"
        raise UserError(located(section, "dtype", text))
    return names[dtype] if kind == "AmpOptimWrapper" else None


def run_settings(config: Mapping[str, Any]) -> RunSettings:
    """Read `train_cfg`, the logger and checkpoint hooks, `randomness` and the switches of a run."""
    # the length, in steps or epochs
    section = config["train_cfg"]
    by_epoch = "max_epochs" in section or section.get("by_epoch", False)
    length = "max_epochs" if by_epoch else "max_iters"
    if section.get(length) is None:
        raise UserError("train_cfg needs max_iters (or max_epochs, with by_epoch=True)")
    # validation and checkpoints
    hooks = config.get("default_hooks") or {}
    checkpoint, logger = (default_hook(hooks, name) for name in ("checkpoint", "logger"))
    further = [*[hooks[name] for name in hooks if name not in DEFAULT_HOOKS], *custom_hooks(config)]
    randomness = config.get("randomness") or {}
    val_interval = whole_number(section, "val_interval", 1 if by_epoch else 1000, "train_cfg")
    hook, unit = "default_hooks.checkpoint", "epoch" if by_epoch else "step"
    interval = whole_number(checkpoint, "interval", 0, hook, least=-1)
    if interval != 0:
        unit = "epoch" if checkpoint.get("by_epoch", by_epoch) else "step"
    keep = whole_number(checkpoint, "max_keep_ckpts", 2, hook, least=-1)
    wrapper = config.get("model_wrapper_cfg") or {}
    return RunSettings(
        length=whole_number(section, length, 1, "train_cfg"),
        unit="epoch" if by_epoch else "step",
        val_interval=val_interval,
        val_begin=whole_number(section, "val_begin", 1, "train_cfg", least=0),
        val_intervals=val_intervals(section),
        log_interval=whole_number(logger, "interval", 50, "default_hooks.logger"),
        checkpoint_interval=(interval or val_interval) if interval >= 0 else None,
        checkpoint_unit=unit,
        keep_checkpoints=keep if keep > 0 else None,
        best=target(checkpoint, "save_best", hook),
        seed=whole_number(randomness, "seed", 0, "randomness", least=0),
        deterministic=switch(randomness, "deterministic", "randomness"),
        cudnn_benchmark=switch(config.get("env_cfg") or {}, "cudnn_benchmark", "env_cfg"),
        **hook_settings(further, by_epoch),
        time_limit=None if section.get("time_limit") is None else seconds(section["time_limit"]),
        skip_nan=whole_number(section, "skip_nan", 0, "train_cfg", least=0),
        compile=bool(config.get("compile", False)),
        channels_last=switch(config, "channels_last"),
        activation_checkpointing=bool(config.get("activation_checkpointing", False)),
        shard=is_sharded(config),
        find_unused_parameters=switch(config, "find_unused_parameters")
        or switch(wrapper, "find_unused_parameters", "model_wrapper_cfg"),
    )


def val_intervals(section: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """`train_cfg.dynamic_intervals`, sorted. Raises UserError unless it is a list of (begin, interval)."""
    pairs = section.get("dynamic_intervals") or ()
    if not fits(pairs, Sequence[tuple[int, int]]) or not all(interval > 0 for _, interval in pairs):
        text = f"train_cfg.dynamic_intervals must be a list of (begin, interval), not {shown(pairs)}"
        raise UserError(located(section, "dynamic_intervals", text))
    return tuple(sorted((begin, interval) for begin, interval in pairs))


def target(section: Mapping[str, Any], key: str, where: str) -> Target:
    """The score that `save_best` or `monitor` names, the first of several. Raises UserError for an unknown `rule`."""
    name, rule = section.get(key) or "auto", section.get("rule")
    if isinstance(name, (list, tuple)):
        if len(name) > 1:
            warnings.warn(
                located(section, key, f"{where}.{key} names {len(name)} scores: the first, {name[0]}, decides")
            )
        name = name[0]
    if not isinstance(name, str):
        raise wrong(section, key, where, "the name of a score, such as 'mIoU'")
    if rule not in (None, "greater", "less"):
        raise UserError(located(section, "rule", f"{where}.rule must be 'greater' or 'less', not {shown(rule)}"))
    bare = name.rpartition("/")[2]
    lower = LOWER_IS_BETTER | set(section.get("less_keys") or ()) - set(section.get("greater_keys") or ())
    return Target(bare, rule == "less" or (rule is None and not lower.isdisjoint((name, bare))), f"{where}.{key}")


def default_hook(hooks: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A hook of `default_hooks`, checked; empty where it is None."""
    section = hooks.get(name) or {}
    check_section(section, KEYS[f"default_hooks.{name}"], f"default_hooks.{name}")
    return section


def custom_hooks(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """`custom_hooks` as a list."""
    hooks = config.get("custom_hooks") or []
    return [hooks] if isinstance(hooks, Mapping) else list(hooks)


def is_sharded(config: Mapping[str, Any]) -> bool:
    """Check for a `strategy` that shards the model: FSDPStrategy, not DDPStrategy."""
    strategy = config.get("strategy") or {}
    strategy = {"type": strategy} if isinstance(strategy, str) else strategy
    check_keys(strategy, strategy, "strategy")
    kind = str(strategy.get("type", ""))
    if further := [key for key in strategy if key != "type"]:
        warnings.warn(f"strategy: its arguments have no effect here: {', '.join(map(str, further))}")
    known = {"": False, "SingleDeviceStrategy": False, "DDPStrategy": False, "FSDPStrategy": True}
    name = kind.rpartition(".")[2]
    if name not in known:
        raise UserError(f"strategy: there is none called '{kind}'{nearest(name, filter(None, known))}")
    return known[name]


def hook_settings(hooks: Iterable[Mapping[str, Any]], by_epoch: bool) -> dict[str, Any]:
    """Read the settings of an EMAHook and an EarlyStoppingHook; warn about any other custom hook."""
    settings: dict[str, Any] = {}
    for hook in filter(None, hooks):
        kind = str(hook.get("type", "")).rpartition(".")[2]
        where = f"custom_hooks.{kind}"
        if where in KEYS:
            check_section(hook, KEYS[where], where)
        if kind == "EMAHook":
            average = str(hook.get("ema_type", "ExponentialMovingAverage")).rpartition(".")[2]
            if average not in AVERAGES:
                raise UserError(f"custom_hooks: no average is called '{average}'{nearest(average, AVERAGES)}")
            begin = whole_number(hook, "begin_epoch" if by_epoch else "begin_iter", 0, where, least=0)
            settings["averaging"] = Averaging(AVERAGES[average], number(hook, "momentum", 0.0002, where), begin)
        elif kind == "EarlyStoppingHook":
            patience, delta = whole_number(hook, "patience", 5, where), number(hook, "min_delta", 0.1, where)
            settings["early_stopping"] = EarlyStopping(patience, delta, target(hook, "monitor", where))
        elif kind in HOOKS.types:
            settings["observers"] = (*settings.get("observers", ()), hook)
        else:
            warn_about_hook("custom_hooks", kind)
    return settings


def class_names(loaders: Iterable[LoaderSettings | None]) -> tuple[tuple[str, ...], list[list[int]]]:
    """The classes and palette that the data sections name; empty where they come from a declaration."""
    for loader in loaders:
        first = next(folders(loader.dataset)) if loader else None
        if first is not None and first.class_names:
            return first.class_names, [list(colour) for colour in (first.metainfo or {}).get("palette") or ()]
    return (), []
