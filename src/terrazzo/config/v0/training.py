"""0.x optimizer, learning rate, length, checkpoints, validation and logs as the equivalent sections of 1.x."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from terrazzo.arguments import check_keys
from terrazzo.config.reading.section import Section
from terrazzo.config.sections import HOOKS, warn_about_hook, whole_number
from terrazzo.config.v0.pipeline import bare_type, new_step
from terrazzo.errors import UserError, nearest

RUNNER_KEYS = ("type", "max_iters", "max_epochs", "work_dir")
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
    **dict.fromkeys(("WandbLoggerHook", "MMSegWandbHook"), ("WandbVisBackend", {"init_kwargs": "init_kwargs"})),
    "MlflowLoggerHook": ("MLflowVisBackend", {"exp_name": "exp_name", "tags": "tags", "params": "params"}),
    "ClearMLLoggerHook": ("ClearMLVisBackend", {"init_kwargs": "init_kwargs"}),
    "NeptuneLoggerHook": ("NeptuneVisBackend", {"init_kwargs": "init_kwargs"}),
    "DvcliveLoggerHook": ("DVCLiveVisBackend", {"init_kwargs": "init_kwargs"}),
}
TRUSTED: ContextVar[bool] = ContextVar("TRUSTED", default=False)  # the config that is being upgraded
WARMUPS = {"linear": "LinearLR", "constant": "ConstantLR", "exp": "ExponentialWarmupLR"}
WARMUP_KEYS = ("warmup", "warmup_iters", "warmup_ratio", "warmup_by_epoch")
LOWEST = ("min_lr", "min_lr_ratio")
# policy -> scheduler, the policy's own keys, and the scheduler's values where they are not given
POLICIES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "fixed": ("", (), {}),
    "step": ("StepLR", ("step", "gamma", "min_lr"), {"gamma": 0.1}),
    "exp": ("ExponentialLR", ("gamma",), {}),
    "poly": ("PolyLR", ("power", "min_lr"), {"power": 1.0, "eta_min": 0.0}),
    "inv": ("InverseLR", ("gamma", "power"), {}),
    "cosineannealing": ("CosineAnnealingLR", LOWEST, {"eta_min": 0.0}),
    "flatcosineannealing": ("CosineAnnealingLR", ("start_percent", *LOWEST), {"eta_min": 0.0}),
    "linearannealing": ("PolyLR", LOWEST, {"eta_min": 0.0}),
    "cosinerestart": (
        "CosineRestartLR", ("periods", "restart_weights", *LOWEST), {"restart_weights": [1], "eta_min": 0.0}),
    "cyclic": ("CyclicLR", ("target_ratio", "cyclic_times", "step_ratio_up", "anneal_strategy", "gamma"), {}),
    "onecycle": ("OneCycleLR", ("max_lr", "total_steps", "pct_start", "anneal_strategy", "div_factor",
                                "final_div_factor", "three_phase"), {}),
}  # fmt: skip
CURVE_KEYS = {"min_lr": "eta_min", "min_lr_ratio": "eta_min_ratio", "max_lr": "eta_max", "step": "step_size"}


class Length:
    """The length of a run, from `runner` or the older `total_iters` and `total_epochs`."""

    def __init__(self, values: Section) -> None:
        runner = values.get("runner") or Section()
        kind = bare_type(runner) or "IterBasedRunner"
        if kind in ("IterBasedRunner", "EpochBasedRunner"):
            check_keys(runner, RUNNER_KEYS, "runner")
        else:
            warnings.warn(f"runner: terrazzo's own loop takes the place of {kind}, whose further keys have no effect")
        self.count: int | None = None
        self.by_epoch = "epoch" in str(runner.get("type", "")).lower()
        self.origin: str | None = None
        for section, prefix in ((values, "total"), (runner, "max")):  # the runner's overrides the older keys
            for unit in ("epochs", "iters"):
                if section.get(key := f"{prefix}_{unit}") is not None:
                    self.count = whole_number(section, key, 0, "runner" if prefix == "max" else "")
                    self.by_epoch, self.origin = unit == "epochs", section.origin_of(key)

    def loop(self) -> Section:
        """`train_cfg` without validation."""
        kind, name = ("EpochBasedTrainLoop", "max_epochs") if self.by_epoch else ("IterBasedTrainLoop", "max_iters")
        return Section({"type": kind, name: self.count})


def upgrade_optimizer(values: Section) -> Section:
    """`optim_wrapper` from `optimizer`, `optimizer_config` and `fp16`."""
    old = values["optimizer"]
    hook = values.get("optimizer_config") or Section()
    check_keys(hook, OPTIMIZER_HOOK_KEYS, "optimizer_config")
    kind = bare_type(hook) or "OptimizerHook"
    if kind not in OPTIMIZER_HOOKS:
        raise UserError(f"optimizer_config: no hook is called '{kind}'{nearest(kind, OPTIMIZER_HOOKS)}")
    half = values.get("fp16")
    mixed = "Fp16" in kind or bool(hook.get("use_fp16")) or half is not None
    wrapper = Section(type="AmpOptimWrapper" if mixed else "OptimWrapper")
    optimizer = Section()
    for key, value in old.items():
        if key not in ("paramwise_cfg", "constructor"):
            optimizer.take(old, key)
        elif value is not None:
            wrapper.take(old, key)
    wrapper["optimizer"] = optimizer
    if hook.get("grad_clip"):
        wrapper.take(hook, "grad_clip", "clip_grad")
    for key in ("cumulative_iters", "update_interval"):
        if hook.get(key, 1) != 1:
            wrapper.take(hook, key, "accumulative_counts")
    if mixed:
        check_keys(half or {}, ("loss_scale", "distributed"), "fp16")
        wrapper.put("loss_scale", 512.0, hook.origin_of("type"))
        for section in (half, hook):
            if section and "loss_scale" in section:
                wrapper.take(section, "loss_scale")
    return wrapper


def upgrade_schedule(config: Section, length: Length) -> list[Section]:
    """`param_scheduler` from `lr_config`: the policy from step 0 on, and the warm-up as a factor on top of it.

    Raises UserError for an unknown policy or key.
    """
    policy = str(config.get("policy") or bare_type(config).removesuffix("LrUpdaterHook")).lower()
    if policy not in POLICIES:
        raise UserError(f"lr_config: no policy is called '{policy}'{nearest(policy, POLICIES)}")
    check_keys(config, ("policy", "type", "by_epoch", *WARMUP_KEYS, *POLICIES[policy][1]), f"lr_config ({policy})")
    by_epoch = bool(config.get("by_epoch", length.by_epoch))
    if policy in ("cyclic", "onecycle"):
        by_epoch = False
    elif by_epoch and not length.by_epoch:
        warnings.warn("lr_config: by_epoch=True in a run counted in iterations left the learning rate as it was in 0.x")
        return []
    curves = [] if policy == "fixed" else [decay(policy, config, length, by_epoch)]
    return [*curves, *([] if config.get("warmup") is None else [warmup(config)])]


def decay(policy: str, config: Section, length: Length, by_epoch: bool) -> Section:
    """The scheduler of a policy, over the whole run."""
    # the curve
    scheduler, keys, defaults = POLICIES[policy]
    names = CURVE_KEYS
    if policy == "step" and "step" not in config:
        raise UserError("lr_config (step) needs `step`: an interval, or the list of its steps")
    if policy == "step" and not isinstance(config["step"], int):
        scheduler, names = "MultiStepLR", names | {"step": "milestones"}
    part = Section(type=scheduler)
    for key in keys:
        if key != "start_percent" and config.get(key) is not None:
            part.take(config, key, names.get(key))
    for key, value in defaults.items():
        part.setdefault(key, value)
    if "eta_min_ratio" in part:
        del part["eta_min"]

    # the steps over which it runs
    inclusive = policy in ("poly", "linearannealing")  # their final value is reached one step after the last
    steps_of_epochs = length.by_epoch and not by_epoch
    begin = (length.count or 0) * config.get("start_percent", 0.75) if policy == "flatcosineannealing" else 0
    part.put("begin", begin if steps_of_epochs else round(begin), config.origin_of("start_percent"))
    if length.count is not None:
        part.put("end", length.count + (inclusive and not steps_of_epochs), length.origin)
    part.put("by_epoch", by_epoch or steps_of_epochs, config.origin_of("by_epoch"))
    if steps_of_epochs:
        part.absorb({"convert_to_iter_based": True} | ({"include_end": True} if inclusive else {}))
    return part


def warmup(config: Section) -> Section:
    """The scheduler of a warm-up: a factor on the rate that reaches 1 at step `warmup_iters`."""
    kind, count = config["warmup"], int(config.get("warmup_iters") or 0)
    if kind not in WARMUPS:
        raise UserError(f"lr_config.warmup: '{kind}' is none of {', '.join(WARMUPS)}")
    if count < 1:
        raise UserError("lr_config: a warm-up needs warmup_iters, a positive number")
    factor = "factor" if kind == "constant" else "start_factor"
    part = Section()
    part.absorb({"type": WARMUPS[kind], factor: 0.1, "begin": 0}, config.origin_of("warmup"))
    if "warmup_ratio" in config:
        part.take(config, "warmup_ratio", factor)
    by_epoch = bool(config.get("warmup_by_epoch"))
    part.put("end", count if by_epoch else count + 1, config.origin_of("warmup_iters"))
    part.put("by_epoch", by_epoch, config.origin_of("warmup_by_epoch") or config.origin_of("warmup"))
    if by_epoch:
        part.absorb({"convert_to_iter_based": True, "include_end": True}, config.origin_of("warmup_by_epoch"))
    return part


def of_hook(config: Section, known: Iterable[str], where: str) -> Section:
    """The keys of a hook's section that 0.x had. Others are errors, or warnings in a trusted project."""
    own = [key for key in config if key not in known] if TRUSTED.get() else []
    if own:
        warnings.warn(f"{where}: keys without effect: {', '.join(map(str, own))}")
        config = config.copy()
        for key in own:
            del config[key]
    check_keys(config, known, where)
    return config


def upgrade_evaluation(config: Section, loop: Section, checkpoint: Section) -> Section:
    """Move `evaluation` into the loop and the checkpoint hook, and return its metrics as an evaluator."""
    config = of_hook(config, EVALUATION, "evaluation")
    evaluator = Section(type="IoUMetric", iou_metrics=["mIoU"])
    for key, value in config.items():
        section, _, name = (EVALUATION[key] or "").rpartition(".")
        if section == "train_cfg":
            loop.take(config, key, name)
        elif section == "val_evaluator":
            evaluator.put(name, [value] if isinstance(value, str) else list(value), config.origin_of(key))
        elif section and value is not None:
            checkpoint.take(config, key, name)
    return evaluator


def upgrade_checkpoint(config: Section, length: Length) -> Section:
    """`default_hooks.checkpoint` from `checkpoint_config`."""
    config = of_hook(config, CHECKPOINT_KEYS, "checkpoint_config")
    hook = Section(type="CheckpointHook", by_epoch=length.by_epoch)
    for key in config:
        if key not in CHECKPOINT_DROPPED:
            hook.take(config, key)
    return hook


def upgrade_log(config: Section, length: Length, sections: Section) -> Section:
    """`default_hooks.logger` from `log_config`; its trackers go into `vis_backends`."""
    if stray := [key for key in config if key not in ("interval", "hooks")]:
        warnings.warn(f"log_config: keys without effect: {', '.join(map(str, stray))}")
    logger = Section()
    logger.absorb({"type": "LoggerHook", "interval": config.get("interval", 50)}, config.origin_of("interval"))
    if not length.by_epoch:
        logger["log_metric_by_epoch"] = False
    for hook in config.get("hooks") or ():
        kind = bare_type(hook)
        if kind in LOGGERS:
            backend, names = LOGGERS[kind]
            tracker = new_step(hook, backend)
            for old, new in names.items():
                if hook.get(old):
                    tracker.take(hook, old, new)
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
        home = "log_config" if kind in LOGGERS else homes.get(kind)
        if home is not None:
            section = (values.get(home) or Section()).copy()
            if home == "log_config":
                section.put("hooks", [*(section.get("hooks") or ()), hook], hook.origin_of("type"))
            else:
                section.absorb(hook)
            values.put(home, section, hook.origin_of("type"))
        elif kind == "EMAHook":
            kept.append(new_step(hook, "EMAHook", ["momentum"], momentum=0.0002))
        elif kind not in HOOKS:
            kept.append(hook)  # perhaps a user's own, which is known once its module is imported
        else:
            warn_about_hook("custom_hooks", kind)
    return kept
