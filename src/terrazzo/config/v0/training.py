"""0.x optimizer, learning rate, length, checkpoints, validation and logs as the equivalent sections of 1.x."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from terrazzo.config.reading.section import Section
from terrazzo.config.sections import check_keys, warn_about_hook
from terrazzo.config.v0.pipeline import bare_type, origin_of, section_at
from terrazzo.errors import UserError, nearest

RUNNER_KEYS = ("type", "max_iters", "max_epochs")
OPTIMIZER_HOOKS = (
    "OptimizerHook", "Fp16OptimizerHook", "GradientCumulativeOptimizerHook", "GradientCumulativeFp16OptimizerHook",
    "DistOptimizerHook",  # of forks that trained with apex
)  # fmt: skip
OPTIMIZER_HOOK_KEYS = (
    "type", "grad_clip", "cumulative_iters", "loss_scale", "detect_anomalous_params", "distributed", "coalesce",
    "bucket_size_mb", "use_fp16", "update_interval",
)  # fmt: skip
# `evaluation`: old name -> new key; None: it controlled how 0.x evaluated, not the result
EVALUATION: dict[str, str | None] = {
    "interval": "train_cfg.val_interval",
    "start": "train_cfg.val_begin",
    "dynamic_intervals": "train_cfg.dynamic_intervals",
    "metric": "val_evaluator.iou_metrics",
    "save_best": "default_hooks.checkpoint.save_best",
    "rule": "default_hooks.checkpoint.rule",
    "greater_keys": "default_hooks.checkpoint.greater_keys",
    "less_keys": "default_hooks.checkpoint.less_keys",
} | dict.fromkeys(
    ("type", "by_epoch", "pre_eval", "efficient_test", "gpu_collect", "tmpdir", "broadcast_bn_buffer", "out_dir",
     "format_only", "file_client_args", "priority", "logger", "imgfile_prefix", "classwise")
)  # fmt: skip
CHECKPOINT_KEYS = (
    "type", "interval", "by_epoch", "save_optimizer", "out_dir", "max_keep_ckpts", "save_last", "filename_tmpl",
    "save_best", "rule", "file_client_args", "create_symlink", "sync_buffer", "meta", "priority",
)  # fmt: skip
CHECKPOINT_DROPPED = ("type", "create_symlink", "sync_buffer", "meta", "priority", "file_client_args")
# hook of log_config -> backend, and the new names of its arguments, except those that set its interval
LOGGERS: dict[str, tuple[str, dict[str, str]]] = {
    "TensorboardLoggerHook": ("TensorboardVisBackend", {"log_dir": "save_dir"}),
    "WandbLoggerHook": ("WandbVisBackend", {"init_kwargs": "init_kwargs"}),
    "MMSegWandbHook": ("WandbVisBackend", {"init_kwargs": "init_kwargs"}),
    "MlflowLoggerHook": ("MLflowVisBackend", {"exp_name": "exp_name", "tags": "tags", "params": "params"}),
    "ClearMLLoggerHook": ("ClearMLVisBackend", {"init_kwargs": "init_kwargs"}),
    "NeptuneLoggerHook": ("NeptuneVisBackend", {"init_kwargs": "init_kwargs"}),
    "DvcliveLoggerHook": ("DVCLiveVisBackend", {"init_kwargs": "init_kwargs"}),
}
WARMUPS = {"linear": "LinearLR", "constant": "ConstantLR", "exp": "ExponentialWarmupLR"}
WARMUP_KEYS = ("warmup", "warmup_iters", "warmup_ratio", "warmup_by_epoch")
# policy -> its own keys
POLICIES: dict[str, tuple[str, ...]] = {
    "fixed": (),
    "step": ("step", "gamma", "min_lr"),
    "exp": ("gamma",),
    "poly": ("power", "min_lr"),
    "inv": ("gamma", "power"),
    "cosineannealing": ("min_lr", "min_lr_ratio"),
    "flatcosineannealing": ("start_percent", "min_lr", "min_lr_ratio"),
    "linearannealing": ("min_lr", "min_lr_ratio"),
    "cosinerestart": ("periods", "restart_weights", "min_lr", "min_lr_ratio"),
    "cyclic": ("target_ratio", "cyclic_times", "step_ratio_up", "anneal_strategy", "gamma"),
    "onecycle": (
        "max_lr",
        "total_steps",
        "pct_start",
        "anneal_strategy",
        "div_factor",
        "final_div_factor",
        "three_phase",
    ),
}


class Length:
    """The length of a run, from `runner` or the older `total_iters` and `total_epochs`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        runner = values.get("runner") or {}
        check_keys(runner, RUNNER_KEYS, "runner")
        self.count: int | None = None
        self.by_epoch = "epoch" in str(runner.get("type", "")).lower()
        self.origin: str | None = None
        for section, key, by_epoch in (
            (runner, "max_iters", False), (runner, "max_epochs", True),
            (values, "total_iters", False), (values, "total_epochs", True),
        ):  # fmt: skip
            if section.get(key) is not None and self.count is None:
                self.count, self.by_epoch, self.origin = int(section[key]), by_epoch, origin_of(section, key)

    def loop(self) -> Section:
        """`train_cfg` without validation."""
        kind, name = ("EpochBasedTrainLoop", "max_epochs") if self.by_epoch else ("IterBasedTrainLoop", "max_iters")
        return section_at(self.origin, type=kind, **{name: self.count})


def upgrade_optimizer(values: Mapping[str, Any]) -> Section:
    """`optim_wrapper` from `optimizer`, `optimizer_config` and `fp16`."""
    old = values["optimizer"]
    hook = values.get("optimizer_config") or {}
    check_keys(hook, OPTIMIZER_HOOK_KEYS, "optimizer_config")
    kind = bare_type(hook) or "OptimizerHook"
    if kind not in OPTIMIZER_HOOKS:
        raise UserError(f"optimizer_config: no hook is called '{kind}'{nearest(kind, OPTIMIZER_HOOKS)}")
    half = values.get("fp16")
    mixed = "Fp16" in kind or bool(hook.get("use_fp16")) or half is not None
    origin = origin_of(values, "optimizer")
    wrapper = section_at(origin, type="AmpOptimWrapper" if mixed else "OptimWrapper")
    optimizer = Section()
    for key, value in old.items():
        target = wrapper if key in ("paramwise_cfg", "constructor") else optimizer
        if value is not None or target is optimizer:
            target.put(key, value, origin_of(old, key))
    wrapper.put("optimizer", optimizer, origin)
    if hook.get("grad_clip"):
        wrapper.put("clip_grad", hook["grad_clip"], origin_of(hook, "grad_clip"))
    for key in ("cumulative_iters", "update_interval"):
        if hook.get(key, 1) != 1:
            wrapper.put("accumulative_counts", hook[key], origin_of(hook, key))
    if mixed:
        check_keys(half or {}, ("loss_scale", "distributed"), "fp16")
        source = hook if "loss_scale" in hook else half or {}
        wrapper.put(
            "loss_scale", source.get("loss_scale", 512.0), origin_of(source, "loss_scale") or origin_of(hook, "type")
        )
    return wrapper


def upgrade_schedule(config: Mapping[str, Any], length: Length) -> list[Section]:
    """`param_scheduler` from `lr_config`: the policy from step 0 on, and the warm-up as a factor on top of it.

    Raises UserError for an unknown policy or key.
    """
    policy = str(config.get("policy") or bare_type(config).removesuffix("LrUpdaterHook")).lower()
    if policy not in POLICIES:
        raise UserError(f"lr_config: no policy is called '{policy}'{nearest(policy, POLICIES)}")
    check_keys(config, ("policy", "type", "by_epoch", *WARMUP_KEYS, *POLICIES[policy]), f"lr_config ({policy})")
    by_epoch = bool(config.get("by_epoch", length.by_epoch))
    if policy in ("cyclic", "onecycle"):
        by_epoch = False
    elif by_epoch and not length.by_epoch:
        warnings.warn("lr_config: by_epoch=True in a run counted in iterations left the learning rate as it was in 0.x")
        return []
    return [part for part in (decay(policy, config, length, by_epoch), warmup(config)) if part is not None]


def decay(policy: str, config: Mapping[str, Any], length: Length, by_epoch: bool) -> Section | None:
    """The scheduler of a policy, over the whole run."""
    if policy == "fixed":
        return None
    origin = origin_of(config, "policy") or origin_of(config, "type")
    curve = CURVES[policy](config)
    part = section_at(origin, type=curve.pop("type"))
    for key, (value, source) in curve.items():
        if value is not None:
            part.put(key, value, origin_of(config, source) or origin)
    inclusive = policy in ("poly", "linearannealing")  # their final value is reached one step after the last
    iterations_of_epochs = length.by_epoch and not by_epoch
    begin: float = 0
    if policy == "flatcosineannealing":
        begin = (length.count or 0) * config.get("start_percent", 0.75)
    part.put("begin", begin if iterations_of_epochs else round(begin), origin_of(config, "start_percent") or origin)
    if length.count is not None:
        part.put("end", length.count + (inclusive and not iterations_of_epochs), length.origin)
    part.put("by_epoch", by_epoch or iterations_of_epochs, origin_of(config, "by_epoch") or origin)
    if iterations_of_epochs:
        part.put("convert_to_iter_based", True, origin)
        if inclusive:
            part.put("include_end", True, origin)
    return part


Values = dict[str, Any]


def _lowest(config: Mapping[str, Any]) -> Values:
    if "min_lr_ratio" in config:
        return {"eta_min_ratio": (config["min_lr_ratio"], "min_lr_ratio")}
    return {"eta_min": (config.get("min_lr") or 0.0, "min_lr")}


def _step(config: Mapping[str, Any]) -> Values:
    gamma = {"gamma": (config.get("gamma", 0.1), "gamma"), "eta_min": (config.get("min_lr"), "min_lr")}
    if "step" not in config:
        raise UserError("lr_config (step) needs `step`: an interval, or the list of its steps")
    if isinstance(config["step"], int):
        return {"type": "StepLR", "step_size": (config["step"], "step"), **gamma}
    return {"type": "MultiStepLR", "milestones": (list(config["step"]), "step"), **gamma}


def _same(kind: str, **names: str) -> Any:
    """A curve that takes the policy's keys as they are, or under other names."""

    def curve(config: Mapping[str, Any]) -> Values:
        taken = {names.get(key, key): (config[key], key) for key in config if key in POLICIES_OF[kind]}
        return {"type": kind, **taken}

    return curve


POLICIES_OF = {
    "ExponentialLR": POLICIES["exp"],
    "InverseLR": POLICIES["inv"],
    "CyclicLR": POLICIES["cyclic"],
    "OneCycleLR": POLICIES["onecycle"],
}
CURVES: dict[str, Any] = {
    "step": _step,
    "exp": _same("ExponentialLR"),
    "poly": lambda config: {"type": "PolyLR", "power": (config.get("power", 1.0), "power"), **_lowest(config)},
    "inv": _same("InverseLR"),
    "cosineannealing": lambda config: {"type": "CosineAnnealingLR", **_lowest(config)},
    "flatcosineannealing": lambda config: {"type": "CosineAnnealingLR", **_lowest(config)},
    "linearannealing": lambda config: {"type": "PolyLR", **_lowest(config)},
    "cosinerestart": lambda config: {
        "type": "CosineRestartLR",
        "periods": (list(config["periods"]), "periods"),
        "restart_weights": (list(config.get("restart_weights", [1])), "restart_weights"),
        **_lowest(config),
    },
    "cyclic": _same("CyclicLR"),
    "onecycle": _same("OneCycleLR", max_lr="eta_max"),
}


def warmup(config: Mapping[str, Any]) -> Section | None:
    """The scheduler of a warm-up: a factor on the rate that reaches 1 at step `warmup_iters`."""
    kind = config.get("warmup")
    if kind is None:
        return None
    if kind not in WARMUPS:
        raise UserError(f"lr_config.warmup: '{kind}' is none of {', '.join(WARMUPS)}")
    count = int(config.get("warmup_iters") or 0)
    if count < 1:
        raise UserError("lr_config: a warm-up needs warmup_iters, a positive number")
    part = section_at(origin_of(config, "warmup"), type=WARMUPS[kind])
    factor = "factor" if kind == "constant" else "start_factor"
    part.put(factor, config.get("warmup_ratio", 0.1), origin_of(config, "warmup_ratio") or origin_of(config, "warmup"))
    part.put("begin", 0, origin_of(config, "warmup"))
    if config.get("warmup_by_epoch"):
        part.put("end", count, origin_of(config, "warmup_iters"))
        part.absorb(
            section_at(
                origin_of(config, "warmup_by_epoch"), by_epoch=True, convert_to_iter_based=True, include_end=True
            )
        )
    else:
        part.put("end", count + 1, origin_of(config, "warmup_iters"))
        part.put("by_epoch", False, origin_of(config, "warmup"))
    return part


def upgrade_evaluation(config: Mapping[str, Any], loop: Section, checkpoint: Section) -> Section:
    """Move `evaluation` into the loop and the checkpoint hook, and return its metrics as an evaluator."""
    check_keys(config, EVALUATION, "evaluation")
    evaluator = section_at(origin_of(config, "metric"), type="IoUMetric", iou_metrics=["mIoU"])
    for key, value in config.items():
        section, _, name = (EVALUATION[key] or "").rpartition(".")
        origin = origin_of(config, key)
        if section == "train_cfg":
            loop.put(name, value, origin)
        elif section == "val_evaluator":
            evaluator.put(name, [value] if isinstance(value, str) else list(value), origin)
        elif section and value is not None:
            checkpoint.put(name, value, origin)
    return evaluator


def upgrade_checkpoint(config: Mapping[str, Any], length: Length, origin: str | None) -> Section:
    """`default_hooks.checkpoint` from `checkpoint_config`."""
    check_keys(config, CHECKPOINT_KEYS, "checkpoint_config")
    hook = section_at(origin, type="CheckpointHook", by_epoch=length.by_epoch)
    for key, value in config.items():
        if key not in CHECKPOINT_DROPPED:
            hook.put(key, value, origin_of(config, key))
    return hook


def upgrade_log(config: Mapping[str, Any], length: Length, sections: Section) -> Section:
    """`default_hooks.logger` from `log_config`; its trackers go into `vis_backends`."""
    check_keys(config, ("interval", "hooks"), "log_config")
    logger = section_at(origin_of(config, "interval"), type="LoggerHook", interval=config.get("interval", 50))
    if not length.by_epoch:
        logger.put("log_metric_by_epoch", False, origin_of(config, "interval"))
    for hook in config.get("hooks") or ():
        kind = bare_type(hook)
        if kind in LOGGERS:
            backend, names = LOGGERS[kind]
            tracker = section_at(origin_of(hook, "type"), type=backend)
            for old, new in names.items():
                if hook.get(old):
                    tracker.put(new, hook[old], origin_of(hook, old))
            sections["vis_backends"].append(tracker)
        elif kind != "TextLoggerHook":
            warn_about_hook("log_config.hooks", kind)
    return logger


def sort_hooks(values: Section) -> list[Section]:
    """Move hooks of `custom_hooks` into the 0.x sections that they equal, and return those that are settings of 1.x.

    Of a moving average only the momentum is kept; other hooks are dropped with a warning.
    """
    kept: list[Section] = []
    homes = {"CheckpointHook": "checkpoint_config", "EvalHook": "evaluation", "DistEvalHook": "evaluation"}
    for hook in values.get("custom_hooks") or ():
        kind = bare_type(hook)
        if kind in homes or kind in LOGGERS:
            home = homes.get(kind, "log_config")
            section = Section()
            section.absorb(values.get(home) or {})
            if home == "log_config":
                section.put("hooks", [*(section.get("hooks") or ()), hook], origin_of(hook, "type"))
            else:
                section.absorb({key: value for key, value in hook.items() if key not in ("type", "priority")})
            values.put(home, section, origin_of(hook, "type"))
            continue
        if kind == "EMAHook":
            average = section_at(origin_of(hook, "type"), type="EMAHook")
            average.put(
                "momentum", hook.get("momentum", 0.0002), origin_of(hook, "momentum") or origin_of(hook, "type")
            )
            kept.append(average)
        else:
            warn_about_hook("custom_hooks", kind)
    return kept
