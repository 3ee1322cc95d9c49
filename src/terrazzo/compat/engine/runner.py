"""`Runner`: a model and its config, trained and scored by terrazzo's own loop."""

from collections.abc import Mapping
from functools import cached_property, partialmethod
from pathlib import Path
from typing import Any

from terrazzo.compat.data.datasets import build_dataloader
from terrazzo.compat.engine.hooks import Hook, Place, UserHook, Visualizer
from terrazzo.compat.engine.tools import ManagerMixin, get_logger
from terrazzo.compat.files.config import Config
from terrazzo.compat.files.files import save_checkpoint
from terrazzo.compat.registry import DATASETS, HOOKS, METRICS
from terrazzo.config.load import load_config
from terrazzo.evaluation.evaluate import evaluate
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import load_checkpoint
from terrazzo.training.train import train

# what a run's hooks see, and its Runner has after it
OF_THE_RUN = "model max_iters max_epochs optimizer optim_wrapper rank world_size"


def loader_of(part: str) -> Any:
    return cached_property(lambda self: self.build_dataloader(self.cfg[f"{part}_dataloader"]))


class Runner:
    """A run by a config: `Runner.from_cfg(cfg).train()`, then `.val()` and `.test()` of what it has trained.

    The model is built once; training starts from its weights, and changes them.
    """

    pretrained: str | None = None  # "none" for a model that has its weights

    def __init__(self, cfg: Any, default_args: Any = None) -> None:
        self.cfg: Any = cfg if isinstance(cfg, Config) else Config({**cfg, **(default_args or {})})
        self.work_dir, self.logger = self.cfg.get("work_dir") or "work_dirs", get_logger()
        self.seen, self.registered = UserHook(Hook()), list[Any]()
        vars(self).update(self.cfg.get("train_cfg") or {})  # max_iters or max_epochs

    from_cfg = classmethod(lambda cls, cfg: cls(cfg))
    iter, epoch = property(lambda self: self.seen.iter), property(lambda self: self.seen.epoch)
    hooks = property(lambda self: [
        getattr(one, "inner", one) for one in self.seen.state.observers or self.registered if one is not self.seen
    ])  # fmt: skip
    visualizer = property(lambda self: Visualizer.get_current_instance())
    message_hub = property(lambda self: ManagerMixin.get_current_instance())
    train_dataloader, val_dataloader, test_dataloader = map(loader_of, ("train", "val", "test"))

    @cached_property
    def model(self) -> Any:
        made = self.run(build_model)
        if start := self.cfg.get("load_from"):
            self.logger.info(load_checkpoint(made, start))
        return made

    @cached_property
    def val_evaluator(self) -> Any:
        given = self.cfg.val_evaluator
        return Place(metrics=[METRICS.build(one) for one in ([given] if isinstance(given, Mapping) else given)])

    @staticmethod
    def build_dataloader(dataloader: Any, *_: Any, **__: Any) -> Any:
        shuffle = (dataloader.get("sampler") or {}).get("shuffle", True)
        options = dataloader["batch_size"], dataloader.get("num_workers", 0)
        return build_dataloader(DATASETS.build(dataloader["dataset"]), *options, shuffle=shuffle)

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        self.registered.append(UserHook(HOOKS.build(hook) if isinstance(hook, Mapping) else hook))

    def run(self, function: Any, *args: Any, changes: Any = None, **options: Any) -> Any:
        """Call a function of terrazzo's with the config, some of whose values change."""
        return function(load_config(self.cfg.to_dict() | (changes or {}), trust=True), *args, **options)

    def train(self) -> Any:
        """Train from the model's weights, and the first time from those that the config names."""
        resume, again = bool(self.cfg.get("resume")), "files" in vars(self)
        options = {"resume": resume, "overwrite": not resume, "pretrained": "none" if again else self.pretrained}
        self.files = self.run(
            train, changes={"load_from": None} if again else {}, work_dir=self.work_dir, model=vars(self).get("model"),
            observers=[self.seen, *self.registered], **options,
        )  # fmt: skip
        vars(self).update({name: getattr(self.seen, name) for name in OF_THE_RUN.split()})
        self.load_checkpoint(self.files.last)  # of which the average is, where there is one
        by_epoch = self.seen.state.settings.unit == "epoch"
        self.save_checkpoint(self.work_dir, f"epoch_{self.epoch}.pth" if by_epoch else f"iter_{self.iter}.pth")
        return self.model

    def test(self, part: str = "test") -> dict[str, Any]:
        parts = {f"test_{key}": self.cfg.get(f"{part}_{key}") for key in ("dataloader", "evaluator")}
        return self.run(evaluate, self.model, changes=parts if part != "test" else {})

    val = partialmethod(test, "val")

    def load_checkpoint(self, filename: Any, map_location: Any = None, strict: bool = False, **_: Any) -> Any:
        return load_checkpoint(self.model, filename, strict=strict)

    def save_checkpoint(self, out_dir: Any, filename: str, *_: Any, **__: Any) -> None:
        """Save the weights, with what makes the file of a trained model complete."""
        meta: dict[str, Any] = {"iter": self.iter, "epoch": self.epoch}
        if (data := getattr(self.seen.state, "train_set", None)) is not None:
            palette = [[*map(int, colour)] for colour in data.palette]
            meta["dataset_meta"] = {"classes": [*data.classes], "palette": palette}
            meta["config"] = self.seen.state.config.shareable()
        save_checkpoint(self.model, str(Path(out_dir, filename)), meta=meta)


IterBasedRunner = EpochBasedRunner = build_runner = Runner
