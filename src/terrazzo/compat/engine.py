"""Hooks and runners: users' hooks are told what terrazzo's loop does; `Runner` starts that loop."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from terrazzo import registry as ours
from terrazzo.arguments import placed
from terrazzo.compat.config import Config, ConfigDict
from terrazzo.compat.processes import ManagerMixin, MessageHub, get_root_logger
from terrazzo.compat.registry import BUILDS, HOOKS, ORIGINALS

# what the loop calls, and when
CALLED = (
    "before_run", "before_train", "before_epoch", "before_train_epoch", "before_iter", "before_train_iter",
    "after_iter", "after_train_iter", "after_epoch", "after_train_epoch", "before_val", "before_val_epoch",
    "after_val_epoch", "after_val", "after_train", "after_run",
)  # fmt: skip
NOT_CALLED = (
    "before_val_iter", "after_val_iter", "before_test", "after_test", "before_test_epoch", "after_test_epoch",
    "before_test_iter", "after_test_iter", "before_save_checkpoint", "after_load_checkpoint",
)  # fmt: skip
STAGES = ("before_run", "before_train_epoch", "before_train_iter", "after_train_iter", "after_train_epoch", "after_run")


def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
    """Nothing."""


class HookPoints:
    """Every point of a hook, without effect."""


for _point in (*CALLED, *NOT_CALLED):
    setattr(HookPoints, _point, nothing)


class Hook(HookPoints):
    """Actions at points of a run; `runner` has `iter`, `epoch`, `model`, `optim_wrapper` and the rest."""

    priority: Any = "NORMAL"
    stages = STAGES

    def every_n_epochs(self, runner: Any, n: int, start: int = 0) -> bool:
        return n > 0 and (runner.epoch + 1 - start) % n == 0

    def every_n_iters(self, runner: Any, n: int, start: int = 0) -> bool:
        return n > 0 and (runner.iter + 1 - start) % n == 0

    every_n_train_iters = every_n_iters

    def every_n_inner_iters(self, inner_iter: Any, n: int) -> bool:
        step = inner_iter if isinstance(inner_iter, int) else inner_iter.inner_iter
        return n > 0 and (step + 1) % n == 0

    def end_of_epoch(self, runner: Any, batch_idx: int = 0) -> bool:
        return bool((runner.iter + 1) % max(runner.epoch_length, 1) == 0)

    def is_last_train_iter(self, runner: Any) -> bool:
        return bool(runner.iter + 1 == runner.max_iters)

    is_last_iter = is_last_train_iter

    def is_last_train_epoch(self, runner: Any) -> bool:
        return bool(runner.epoch + 1 == runner.max_epochs)

    is_last_epoch = is_last_train_epoch

    def get_triggered_stages(self) -> list[str]:
        return [name for name in CALLED if getattr(type(self), name) is not getattr(HookPoints, name)]


class Place:
    """A part of a run whose place terrazzo's own takes; what it is given are its attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vars(self).update(kwargs)


class OfficialHook(Place, Hook):
    """A hook whose work terrazzo does itself."""


for _base, _names in (
    (
        OfficialHook,
        "CheckpointHook LoggerHook TextLoggerHook EvalHook DistEvalHook OptimizerHook Fp16OptimizerHook EMAHook "
        "LrUpdaterHook IterTimerHook DistSamplerSeedHook SegVisualizationHook ParamSchedulerHook WandbLoggerHook "
        "TensorboardLoggerHook GradientCumulativeOptimizerHook",
    ),
    (
        Place,
        "LogProcessor LocalVisBackend WandbVisBackend TensorboardVisBackend BaseVisBackend "
        "InfiniteSampler DefaultSampler",
    ),
):
    globals().update({name: type(name, (_base,), {"__module__": __name__}) for name in _names.split()})


class Priority(IntEnum):
    """The order of hooks at a point."""

    HIGHEST, VERY_HIGH, HIGH, ABOVE_NORMAL, NORMAL = 0, 10, 30, 40, 50
    BELOW_NORMAL, LOW, VERY_LOW, LOWEST = 60, 70, 90, 100


def get_priority(priority: Any) -> int:
    return Priority[priority.upper()].value if isinstance(priority, str) else int(priority)


class RunnerView:
    """A run as hooks see it."""

    def __init__(self, state: Any) -> None:
        self.state, self.message_hub = state, MessageHub.get_current_instance()
        self.outputs: Any = None
        self.log_buffer = SimpleNamespace(output={}, ready=False, update=lambda *args, **kwargs: None)
        self.data_loader = self.train_dataloader = state.train_set
        self.val_dataloader = state.val_loader
        self.meta: dict[str, Any] = {}

    iter = property(lambda self: self.state.step)
    epoch = property(lambda self: self.state.step // max(self.epoch_length, 1))
    inner_iter = property(lambda self: self.state.step % max(self.epoch_length, 1))
    epoch_length = property(lambda self: self.state.sampler.batches_per_epoch)
    max_iters = _max_iters = property(lambda self: self.state.total)
    max_epochs = _max_epochs = property(lambda self: -(-self.state.total // max(self.epoch_length, 1)))
    model = property(lambda self: self.state.model)
    optimizer = property(lambda self: self.state.optimizer)
    work_dir = property(lambda self: str(self.state.log.work_dir))
    rank = property(lambda self: self.state.group.rank)
    world_size = property(lambda self: self.state.group.size)
    cfg = property(lambda self: ConfigDict(self.state.config.to_dict()))
    logger = property(lambda self: get_root_logger())

    @property
    def optim_wrapper(self) -> Any:
        optimizer = self.state.optimizer
        rates = lambda: {"lr": [group["lr"] for group in optimizer.param_groups]}  # noqa: E731
        return SimpleNamespace(optimizer=optimizer, param_groups=optimizer.param_groups, get_lr=rates)

    def current_lr(self) -> list[float]:
        return [group["lr"] for group in self.state.optimizer.param_groups]

    get_lr = current_lr


class UserHook:
    """A user's hook as an observer of terrazzo's loop."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        unused = [name for name in NOT_CALLED if own_point(inner, name)]
        if unused:
            warnings.warn(f"{type(inner).__name__}: terrazzo does not call {', '.join(unused)}")

    def call(self, names: tuple[str, ...], *args: Any) -> None:
        """Call the points that the user's class has; those of 1.x take more than the runner."""
        for name in names:
            if own_point(self.inner, name):
                method = getattr(self.inner, name)
                count = method.__code__.co_argcount - 1
                method(*args[: count if not method.__code__.co_flags & 4 else len(args)])

    def start(self, state: Any) -> None:
        self.runner = RunnerView(state)
        self.call(("before_run", "before_train", "before_epoch", "before_train_epoch"), self.runner)

    def before_step(self, state: Any, batch: Any) -> None:
        if state.step and self.runner.inner_iter == 0:
            self.call(("before_epoch", "before_train_epoch"), self.runner)
        self.call(("before_iter", "before_train_iter"), self.runner, self.runner.inner_iter, batch)

    def after_step(self, state: Any, batch: Any, losses: Mapping[str, Any]) -> None:
        """The loop has counted the step already; hooks see it as the one that is being done."""
        state.step -= 1
        try:
            values = {name: float(value.detach()) for name, value in losses.items()}
            total = sum(value for name, value in losses.items() if "loss" in name)
            self.runner.outputs = {"loss": total, "log_vars": values, **losses}
            step = self.runner.inner_iter
            self.call(("after_iter", "after_train_iter"), self.runner, step, batch, self.runner.outputs)
            if step + 1 == self.runner.epoch_length:
                self.call(("after_epoch", "after_train_epoch"), self.runner)
        finally:
            state.step += 1

    def before_validation(self, state: Any) -> None:
        self.call(("before_val", "before_val_epoch"), self.runner)

    def after_validation(self, state: Any) -> None:
        scores = {name: value for name, value in state.metrics.items() if isinstance(value, (int, float))}
        self.call(("after_val_epoch", "after_val"), self.runner, scores)

    def end(self, state: Any) -> None:
        self.call(("after_train", "after_run"), self.runner)


def own_point(hook: Any, name: str) -> bool:
    method = getattr(type(hook), name, nothing)
    return method is not nothing and method is not getattr(HookPoints, name, None)


def build_user_hook(cls: Any, spec: Mapping[str, Any], where: str, **extra: Any) -> UserHook:
    """A user's hook from its section as written."""
    options = ConfigDict({key: value for key, value in spec.items() if key not in ("type", "priority")})
    with placed(spec.get("type"), where, spec):
        return UserHook(cls(**options))


BUILDS["hook"] = build_user_hook
HOOKS.target = ours.HOOKS
ORIGINALS["hook"] = lambda name: (
    item if isinstance(item := globals().get(name), type) and issubclass(item, Hook) else None
)


class Runner:
    """A run by a config: `Runner.from_cfg(cfg).train()`, `.val()` and `.test()` are terrazzo's own."""

    def __init__(self, cfg: Any) -> None:
        self.cfg: Any = cfg if isinstance(cfg, Config) else Config(cfg)
        self.work_dir = self.cfg.get("work_dir") or "work_dirs"
        self.logger = logging.getLogger("terrazzo")

    @classmethod
    def from_cfg(cls, cfg: Any) -> Runner:
        return cls(cfg)

    def overrides(self) -> dict[str, Any]:
        return {key: value for key, value in (("load_from", self.cfg.get("load_from")),) if value}

    def as_config(self) -> Any:
        from terrazzo.config.load import load_config

        return load_config(self.cfg.to_dict(), trust=True)

    @property
    def model(self) -> Any:
        from terrazzo.models.build import build_model

        return build_model(self.as_config())

    def train(self) -> Any:
        """Train; returns the run."""
        from terrazzo.training.train import train

        return train(self.as_config(), work_dir=self.work_dir, resume=bool(self.cfg.get("resume")))

    def test(self) -> dict[str, Any]:
        """The scores of `load_from` on the test data."""
        from terrazzo.evaluation.evaluate import evaluate

        return evaluate(self.as_config(), self.cfg.get("load_from"))

    val = test


class BaseLoop:
    """A loop of a run, whose place terrazzo's own takes."""

    def __init__(self, runner: Any, dataloader: Any = None, **kwargs: Any) -> None:
        self._runner, self.dataloader = runner, dataloader

    runner = property(lambda self: self._runner)


IterBasedTrainLoop = EpochBasedTrainLoop = ValLoop = TestLoop = BaseLoop
BaseRunner = IterBasedRunner = EpochBasedRunner = FlexibleRunner = Runner


def build_runner(cfg: Any, default_args: Any = None) -> Runner:
    return Runner({**cfg, **(default_args or {})})


class Visualizer(ManagerMixin):
    """A painter of results, whose place `terrazzo predict` and `--show-dir` take."""

    dataset_meta: Any = None

    def add_datasample(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    add_image = add_scalar = add_scalars = add_config = add_graph = set_image = add_datasample


SegLocalVisualizer = Visualizer
