"""The typed form of a config, checked once; past it nothing reads the config's dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from terrazzo.config.custom_imports import check_custom
from terrazzo.config.datasets import DataTree, data_tree, folders
from terrazzo.config.duration import seconds
from terrazzo.config.evaluators import EvaluatorSettings, evaluator_settings
from terrazzo.config.ignored import drop_ignored
from terrazzo.config.monitoring import DEFAULT_PICTURES, WatchSettings, watch_settings
from terrazzo.config.sections import (
    CHECKPOINT_KEYS,
    LOADER_KEYS,
    check_keys,
    check_sections,
    warn_about_hook,
    whole_number,
)
from terrazzo.errors import UserError, nearest

AMP_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}  # our names of the precisions, and those in configs
AVERAGES = {
    "ExponentialMovingAverage": "ema",
    "ExpMomentumEMA": "ema",
    "MomentumAnnealingEMA": "ema",
    "StochasticWeightAverage": "swa",
}


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
class EarlyStopping:
    """The run ends after `patience` validations whose score is not better than the best by more than `min_delta`."""

    patience: int
    min_delta: float = 0.0


@dataclass(frozen=True)
class RunSettings:
    """The length of a run and its intervals, counted in `unit`, "step" or "epoch"."""

    length: int
    unit: str = "step"
    val_interval: int = 1
    val_begin: int = 1
    log_interval: int = 50
    checkpoint_interval: int | None = 1  # None: only at the end
    checkpoint_unit: str = "step"
    keep_checkpoints: int | None = 2  # None: all
    best_metric: str = "mIoU"
    lower_is_better: bool = False
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
    model = dict(config["model"])
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
        load_from=config.get("load_from"),
        freeze=part_names(config.get("freeze")),
        watch=watch_settings(config, whole_number(config, "val_pictures", DEFAULT_PICTURES, "", least=0)),
        tta_pipeline=tuple(config.get("tta_pipeline") or ()),
        tta_model=str((config.get("tta_model") or {}).get("type", "SegTTAModel")),
    )


def part_names(value: Any) -> tuple[str, ...]:
    """Read `freeze`: one name of a part of the model, or several."""
    names = [value] if isinstance(value, str) else value or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"freeze must be a list of names of parts of the model, such as [backbone], not {value!r}")
    return tuple(names)


def loader_settings(config: Mapping[str, Any], name: str) -> LoaderSettings | None:
    """A `*_dataloader` section."""
    section = config.get(name)
    if not section:
        return None
    check_keys(section, LOADER_KEYS, name)
    if "dataset" not in section:
        raise UserError(f"{name} has no `dataset`")
    sampler = section.get("sampler") or {}
    if isinstance(sampler, str):
        sampler = {"type": sampler}
    return LoaderSettings(
        dataset=data_tree(section["dataset"], f"{name}.dataset"),
        batch_size=whole_number(section, "batch_size", 1, name),
        num_workers=whole_number(section, "num_workers", 0, name, least=0),
        shuffle=bool(sampler.get("shuffle", True)),
        drop_last=bool(section.get("drop_last", False)),
        rare_classes=rare_class_temperature(sampler, f"{name}.sampler"),
    )


def rare_class_temperature(sampler: Mapping[str, Any], where: str) -> float | None:
    """The temperature of a RareClassSampler (short: `rare-class`), 0.01 unless it is given; None for other samplers."""
    if str(sampler.get("type", "")).rpartition(".")[2] not in ("RareClassSampler", "rare-class"):
        return None
    check_keys(sampler, ("type", "temperature", "shuffle"), where)
    temperature = sampler.get("temperature", 0.01)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or temperature <= 0:
        raise UserError(f"{where}.temperature must be a number above 0, such as 0.01, not {temperature!r}")
    return float(temperature)


def optimizer_settings(config: Mapping[str, Any]) -> OptimizerSettings:
    """Read `optim_wrapper` and `param_scheduler`."""
    section = config["optim_wrapper"]
    if "optimizer" not in section:
        raise UserError("optim_wrapper has no `optimizer`")
    schedule = config.get("param_scheduler") or []
    amp = None
    if str(section.get("type", "")).rpartition(".")[2] == "AmpOptimWrapper":
        names = {dtype: name for name, dtype in AMP_DTYPES.items()}
        amp = names.get(str(section.get("dtype")), "auto")
    return OptimizerSettings(
        optimizer=dict(section["optimizer"]),
        paramwise=section.get("paramwise_cfg"),
        constructor=section.get("constructor"),
        clip_grad=section.get("clip_grad"),
        accumulate=whole_number(section, "accumulative_counts", 1, "optim_wrapper"),
        amp=amp,
        schedule=[dict(schedule)] if isinstance(schedule, Mapping) else [dict(part) for part in schedule],
    )


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
    checkpoint = hooks.get("checkpoint") or {}
    check_keys(checkpoint, CHECKPOINT_KEYS, "default_hooks.checkpoint")
    best = checkpoint.get("save_best")
    best = best[0] if isinstance(best, (list, tuple)) and best else best
    randomness = config.get("randomness") or {}
    val_interval = whole_number(section, "val_interval", 1 if by_epoch else 1000, "train_cfg")
    hook, unit = "default_hooks.checkpoint", "epoch" if by_epoch else "step"
    interval = whole_number(checkpoint, "interval", 0, hook, least=-1)
    if interval != 0:
        unit = "epoch" if checkpoint.get("by_epoch", by_epoch) else "step"
    keep = whole_number(checkpoint, "max_keep_ckpts", 2, hook, least=-1)
    return RunSettings(
        length=whole_number(section, length, 1, "train_cfg"),
        unit="epoch" if by_epoch else "step",
        val_interval=val_interval,
        val_begin=whole_number(section, "val_begin", 1, "train_cfg", least=0),
        log_interval=whole_number(hooks.get("logger") or {}, "interval", 50, "default_hooks.logger"),
        checkpoint_interval=(interval or val_interval) if interval >= 0 else None,
        checkpoint_unit=unit,
        keep_checkpoints=keep if keep > 0 else None,
        best_metric=str(best).rpartition("/")[2] if best and best != "auto" else "auto",
        lower_is_better=checkpoint.get("rule") == "less" or best == "loss",
        seed=whole_number(randomness, "seed", 0, "randomness", least=0),
        deterministic=bool(randomness.get("deterministic", False)),
        cudnn_benchmark=bool((config.get("env_cfg") or {}).get("cudnn_benchmark", False)),
        **hook_settings(config.get("custom_hooks") or (), by_epoch),
        time_limit=None if section.get("time_limit") is None else seconds(section["time_limit"]),
        skip_nan=whole_number(section, "skip_nan", 0, "train_cfg", least=0),
        compile=bool(config.get("compile", False)),
        channels_last=bool(config.get("channels_last", False)),
        activation_checkpointing=bool(config.get("activation_checkpointing", False)),
        shard=is_sharded(config),
        find_unused_parameters=bool(config.get("find_unused_parameters", False)),
    )


def is_sharded(config: Mapping[str, Any]) -> bool:
    """Check for a `strategy` that shards the model: FSDPStrategy, not DDPStrategy."""
    strategy = config.get("strategy") or {}
    kind = strategy if isinstance(strategy, str) else str(strategy.get("type", ""))
    known = {"": False, "SingleDeviceStrategy": False, "DDPStrategy": False, "FSDPStrategy": True}
    name = kind.rpartition(".")[2]
    if name not in known:
        raise UserError(f"strategy: there is none called '{kind}'{nearest(name, filter(None, known))}")
    return known[name]


def hook_settings(hooks: Iterable[Mapping[str, Any]], by_epoch: bool) -> dict[str, Any]:
    """Read the settings of an EMAHook and an EarlyStoppingHook; warn about any other custom hook."""
    settings: dict[str, Any] = {}
    for hook in hooks:
        kind = str(hook.get("type", "")).rpartition(".")[2]
        if kind == "EMAHook":
            average = str(hook.get("ema_type", "ExponentialMovingAverage")).rpartition(".")[2]
            if average not in AVERAGES:
                raise UserError(f"custom_hooks: no average is called '{average}'{nearest(average, AVERAGES)}")
            begin = hook.get("begin_epoch" if by_epoch else "begin_iter") or 0
            settings["averaging"] = Averaging(AVERAGES[average], float(hook.get("momentum", 0.0002)), int(begin))
        elif kind == "EarlyStoppingHook":
            patience = whole_number(hook, "patience", 5, "custom_hooks.EarlyStoppingHook")
            settings["early_stopping"] = EarlyStopping(patience, float(hook.get("min_delta", 0.1)))
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
