"""Hooks: users' own are told what terrazzo's loop does."""

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from terrazzo.compat.data.structures import samples_of
from terrazzo.compat.engine.tools import ManagerMixin, get_logger
from terrazzo.compat.files.config import ConfigDict
from terrazzo.compat.registry import BUILDS, ORIGINALS, wrapping
from terrazzo.sample import Batch

# what the loop calls, and when
CALLED = (
    "before_run before_train before_epoch before_train_epoch before_iter before_train_iter after_iter after_train_iter "
    "after_epoch after_train_epoch before_val before_val_epoch after_val_epoch after_val after_train after_run"
)
NOT_CALLED = (
    "before_val_iter after_val_iter before_test after_test before_test_epoch after_test_epoch before_test_iter "
    "after_test_iter before_save_checkpoint after_load_checkpoint"
)
NOTHING = dict.fromkeys(f"{CALLED} {NOT_CALLED}".split(), lambda self, *args, **kwargs: None)
POINTS: Any = type("POINTS", (), NOTHING)


class Hook(POINTS):
    """Actions at points of a run; `runner` has `iter`, `epoch`, `model`, `optim_wrapper` and the rest."""

    priority: Any = "NORMAL"

    def every_n_epochs(self, runner: Any, n: int, start: int = 0) -> bool:
        return n > 0 and (runner.epoch + 1 - start) % n == 0

    def every_n_iters(self, runner: Any, n: int, start: int = 0) -> bool:
        return n > 0 and (runner.iter + 1 - start) % n == 0

    def every_n_inner_iters(self, inner_iter: Any, n: int) -> bool:
        return n > 0 and (getattr(inner_iter, "inner_iter", inner_iter) + 1) % n == 0

    every_n_train_iters = every_n_iters
    end_of_epoch = staticmethod(lambda runner, *_: (runner.iter + 1) % runner.epoch_length == 0)
    is_last_iter = is_last_train_iter = staticmethod(lambda runner: runner.iter + 1 == runner.max_iters)
    is_last_epoch = is_last_train_epoch = staticmethod(lambda runner: runner.epoch + 1 == runner.max_epochs)


class Place:
    """A part of a run whose place terrazzo's own takes; what it is given are its attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vars(self).update(kwargs)


class OfficialHook(Place, Hook):
    """A hook whose work terrazzo does itself."""


class BaseLoop(Place):
    def __init__(self, runner: Any, dataloader: Any = None, **kwargs: Any) -> None:
        self.runner, self._runner, self.dataloader = runner, runner, dataloader


class Visualizer(Place, ManagerMixin):
    """A painter of results, whose place `terrazzo predict` and `--show-dir` take."""

    dataset_meta: Any = None
    add_datasample = add_image = add_scalar = add_scalars = add_config = add_graph = set_image = lambda *_, **__: None


CURVES = "Constant CosineAnnealing CosineRestart Exponential Linear MultiStep OneCycle Poly ReduceOnPlateau Step"
# class -> the names whose place it takes
PLACES: dict[type, str] = {
    OfficialHook: "CheckpointHook LoggerHook TextLoggerHook EvalHook DistEvalHook OptimizerHook Fp16OptimizerHook "
    "EMAHook LrUpdaterHook IterTimerHook DistSamplerSeedHook SegVisualizationHook ParamSchedulerHook WandbLoggerHook "
    "TensorboardLoggerHook GradientCumulativeOptimizerHook",
    Place: "LogProcessor LocalVisBackend WandbVisBackend TensorboardVisBackend BaseVisBackend InfiniteSampler "
    "DefaultSampler Evaluator BaseInferencer OptimWrapperDict _ParamScheduler convert_overlay_heatmap img_from_canvas "
    "LRSchedulerMixin MomentumSchedulerMixin "
    + " ".join(f"{curve}{kind}" for curve in CURVES.split() for kind in ("LR", "Momentum", "ParamScheduler")),
    BaseLoop: "IterBasedTrainLoop EpochBasedTrainLoop ValLoop TestLoop",
    Visualizer: "SegLocalVisualizer",
}
PRIORITIES = {"HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40, "NORMAL": 50, "BELOW_NORMAL": 60,
              "LOW": 70, "VERY_LOW": 90, "LOWEST": 100}  # fmt: skip
TABLE: dict[str, Any] = {
    **{name: type(name, (base,), {"__module__": __name__}) for base, all_ in PLACES.items() for name in all_.split()},
    "Priority": SimpleNamespace(**PRIORITIES),
    "get_priority": lambda value: PRIORITIES[value.upper()] if isinstance(value, str) else int(value),
}


class UserHook:
    """A user's hook as an observer of terrazzo's loop, and the run as the hook sees it."""

    state: Any = SimpleNamespace(observers=())  # before the run
    iter, epoch, epoch_length = 0, 0, 1
    inner_iter = property(lambda self: self.iter % self.epoch_length)

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        if unused := [name for name in NOT_CALLED.split() if own_point(inner, name)]:
            warnings.warn(f"{type(inner).__name__}: terrazzo does not call {', '.join(unused)}")

    def call(self, names: str, *args: Any) -> None:
        """Call the points that the user's class has; those of 1.x take more than the runner."""
        for name in names.split():
            if own_point(self.inner, name):
                method = getattr(self.inner, name)
                args = tuple(as_dict(value) if isinstance(value, Batch) else value for value in args)
                takes_any = method.__code__.co_flags & 4
                method(self, *args[: len(args) if takes_any else method.__code__.co_argcount - 2])

    def start(self, state: Any) -> None:
        self.state, self.message_hub, self.logger = state, ManagerMixin.get_current_instance(), get_logger()
        self.train_dataloader = self.data_loader = state.train_set
        self.val_dataloader, self.meta, self.outputs = state.val_loader, dict[str, Any](), dict[str, Any]()
        self.model, self.optimizer = state.model, state.optimizer
        self.max_iters = self._max_iters = state.total
        # a run of iterations is one epoch, which ends after its last validation
        batches, by_epoch = state.sampler.batches_per_epoch or 1, state.settings.unit == "epoch"
        self.epoch_length = batches if by_epoch else state.total + 1
        self.iter, self.epoch, self.in_epoch = state.step, state.step // self.epoch_length, False
        self.max_epochs = self._max_epochs = -(-state.total // self.epoch_length)
        self.work_dir, self.cfg = str(state.log.work_dir), ConfigDict(state.config.to_dict())
        self.rank, self.world_size, groups = state.group.rank, state.group.size, state.optimizer.param_groups
        self.log_buffer = SimpleNamespace(output={}, ready=False, update=lambda *args, **kwargs: None)
        self.current_lr = self.get_lr = lambda: [group["lr"] for group in groups]
        self.optim_wrapper = SimpleNamespace(optimizer=state.optimizer, param_groups=groups)
        self.optim_wrapper.get_lr = lambda: {"lr": self.get_lr()}
        self.call("before_run before_train")

    def before_step(self, state: Any, batch: Any) -> None:
        opening = "" if self.in_epoch else "before_epoch before_train_epoch "
        self.iter, self.in_epoch = state.step, True
        self.call(f"{opening}before_iter before_train_iter", self.inner_iter, batch)

    def after_step(self, state: Any, batch: Any, losses: Mapping[str, Any]) -> None:
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.outputs = {"loss": sum(losses[name] for name in losses if "loss" in name), "log_vars": values, **losses}
        self.call("after_iter after_train_iter", self.inner_iter, batch, self.outputs)
        self.iter = state.step
        if self.inner_iter == 0:
            self.call("after_epoch after_train_epoch")
            self.epoch, self.in_epoch = self.epoch + 1, False

    def before_validation(self, state: Any) -> None:
        self.call("before_val before_val_epoch")

    def after_validation(self, state: Any) -> None:
        scores = {name: value for name, value in state.metrics.items() if isinstance(value, (int, float))}
        self.call("after_val_epoch after_val", scores)

    def end(self, state: Any) -> None:
        self.call("after_epoch after_train_epoch after_train after_run" if self.in_epoch else "after_train after_run")


def as_dict(batch: Batch) -> dict[str, Any]:
    """A batch as 1.x collates it."""
    images = batch.image.flip(1) if batch.image.shape[1] == 3 else batch.image
    return {"inputs": [*images], "data_samples": samples_of(batch.image, batch.targets.get("label"))}


def own_point(hook: Any, name: str) -> bool:
    return getattr(type(hook), name, None) not in (None, getattr(POINTS, name, None))


BUILDS["hook"] = wrapping(UserHook)
ORIGINALS["hook"] = lambda name: TABLE[name] if name in PLACES[OfficialHook].split() else None
