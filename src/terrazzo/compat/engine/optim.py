"""Optimizer constructors and wrappers as users extend them."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from terrazzo.compat.files.config import ConfigDict
from terrazzo.compat.registry import KEEPERS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, ORIGINALS
from terrazzo.training.optim import build as ours


class OptimWrapper:
    """An optimizer whose step is one call; what it does not have itself is the optimizer's."""

    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        self.optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["optimizer"], name)

    def update_params(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        loss.backward()
        self.step()
        self.zero_grad()

    optim_context = staticmethod(lambda model: nullcontext())


class AmpOptimWrapper(OptimWrapper):
    """An optimizer in mixed precision, for which the loop cares."""

    def __init__(self, loss_scale: Any = "dynamic", dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class ExponentialMovingAverage(AveragedModel):
    """The moving average of a model's weights, to which each `interval`-th update adds the share `momentum`."""

    def __init__(
        self, model: nn.Module, momentum: float = 0.0002, interval: int = 1, device: Any = None,
        update_buffers: bool = False,
    ) -> None:  # fmt: skip
        average = get_ema_multi_avg_fn(1 - momentum)
        super().__init__(model, device, multi_avg_fn=average, use_buffers=update_buffers)
        self.momentum, self.interval, self.calls = momentum, interval, 0

    def update_parameters(self, model: nn.Module) -> None:
        if self.calls % self.interval == 0:
            super().update_parameters(model)
        self.calls += 1


class DefaultOptimizerConstructor:
    """Groups of parameters with their own rates and decays; a subclass fills them in `add_params`."""

    decay: str | None = None  # the name of a constructor of terrazzo's whose rates fall with the depth of a layer
    _validate_cfg = staticmethod(lambda: None)  # the product checks it

    def __init__(self, optimizer_cfg: Any, paramwise_cfg: Any = None) -> None:
        if not isinstance(optimizer_cfg, Mapping):
            raise TypeError(f"optimizer_cfg should be a dict, but got {type(optimizer_cfg)}")
        inner = optimizer_cfg.get("optimizer")
        self.optim_wrapper_cfg, self.paramwise_cfg = ConfigDict(optimizer_cfg), ConfigDict(paramwise_cfg or {})
        self.wraps = isinstance(inner, Mapping)
        self.optimizer_cfg = ConfigDict(self.optim_wrapper_cfg.pop("optimizer") if self.wraps else optimizer_cfg)
        self.base_lr, self.base_wd = self.optimizer_cfg.get("lr"), self.optimizer_cfg.get("weight_decay")
        self.options = {key: value for key, value in self.optimizer_cfg.items() if key != "type"}

    def _is_in(self, param_group: Any, param_group_list: Any) -> bool:
        known = {id(p) for group in param_group_list for p in group["params"]}
        return bool({id(p) for p in param_group["params"]} & known)

    def add_params(self, params: list[Any], module: nn.Module, prefix: str = "", is_dcn_module: Any = None) -> None:
        found = ours.parameters(module, self.options, dict(self.paramwise_cfg), self.decay)
        params.extend(item if isinstance(item, dict) else {"params": [item]} for item in found)

    def groups(self, model: nn.Module) -> list[Any]:
        params: list[Any] = []
        self.add_params(params, getattr(model, "module", model))
        return params

    def __call__(self, model: nn.Module) -> Any:
        kind = self.optimizer_cfg["type"]
        factory = OPTIMIZERS.get(kind) or ours.optimizers()[kind]
        optimizer = factory(self.groups(model) if self.paramwise_cfg else model.parameters(), **self.options)
        return OptimWrapper(optimizer) if self.wraps else optimizer


DefaultOptimWrapperConstructor = DefaultOptimizerConstructor
TABLE: dict[str, Any] = {
    name: type(name, (DefaultOptimizerConstructor,), {"decay": name, "__module__": __name__})
    for name in ("LearningRateDecayOptimizerConstructor", "LayerDecayOptimizerConstructor")
}


def user_parameters(constructor: Any) -> Any:
    """A function of a model, options and `paramwise` that gives the groups of a user's constructor to the product."""

    def parameters(model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any]) -> list[Any]:
        made = constructor({"optimizer": {"type": "AdamW", **options}, "type": "OptimWrapper", **options}, paramwise)
        if hasattr(made, "add_params") and type(made).__call__ is DefaultOptimizerConstructor.__call__:
            return made.groups(model)
        optimizer = made(model)
        return getattr(optimizer, "optimizer", optimizer).param_groups

    return parameters


KEEPERS["optimizer constructor"] = (lambda name, item: ours.USER_CONSTRUCTORS.update({name: user_parameters(item)}),)
KEEPERS["optimizer"] = (lambda name, item: ours.USER_OPTIMIZERS.update({name: item}),)
ORIGINALS["optimizer"] = lambda name: getattr(torch.optim, name, None)
ORIGINALS["optimizer constructor"] = lambda name: TABLE.get(
    name, DefaultOptimizerConstructor if name in ours.CONSTRUCTORS else None
)


def build_optimizer(model: nn.Module, cfg: Any) -> Any:
    if not hasattr(cfg, "get") or "type" not in cfg:
        return {name: build_optimizer(getattr(model, name), own) for name, own in cfg.items()}
    options = dict(cfg)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(options.pop("constructor", "DefaultOptimizerConstructor"))
    return constructor(options, options.pop("paramwise_cfg", None))(getattr(model, "module", model))


def build_pixel_sampler(cfg: Any, **default_args: Any) -> Any:
    return MODELS.build(cfg, default_args=default_args)


build_optim_wrapper = build_optimizer
