"""Optimizer constructors, wrappers and schedulers as users extend them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from terrazzo.compat.config import ConfigDict
from terrazzo.compat.registry import KEEPERS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, ORIGINALS
from terrazzo.training.optim import build as ours


class OptimWrapper:
    """An optimizer whose step is one call; what it does not have itself is the optimizer's."""

    def __init__(self, optimizer: Any, accumulative_counts: int = 1, clip_grad: Any = None, **_: Any) -> None:
        self.optimizer, self._accumulative_counts, self.clip_grad_kwargs = optimizer, accumulative_counts, clip_grad

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def update_params(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        loss.backward()
        if self.clip_grad_kwargs:
            params = [p for group in self.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(params, **{"max_norm": 35, **self.clip_grad_kwargs})
        self.step()
        self.zero_grad()

    def optim_context(self, model: Any) -> Any:
        return nullcontext()

    def get_lr(self) -> dict[str, list[float]]:
        return {"lr": [group["lr"] for group in self.param_groups]}


AmpOptimWrapper = OptimWrapper


class DefaultOptimizerConstructor:
    """Groups of parameters with their own rates and decays; a subclass fills them in `add_params`."""

    def __init__(self, optimizer_cfg: Any, paramwise_cfg: Any = None) -> None:
        if not isinstance(optimizer_cfg, Mapping):
            raise TypeError(f"optimizer_cfg should be a dict, but got {type(optimizer_cfg)}")
        inner = optimizer_cfg.get("optimizer")
        self.optim_wrapper_cfg = ConfigDict(optimizer_cfg)
        self.optimizer_cfg = ConfigDict(inner if isinstance(inner, Mapping) else optimizer_cfg)
        self.paramwise_cfg = ConfigDict(paramwise_cfg or {})
        self.base_lr, self.base_wd = self.optimizer_cfg.get("lr"), self.optimizer_cfg.get("weight_decay")

    def _validate_cfg(self) -> None:
        """Nothing: the product checks it."""

    def _is_in(self, param_group: Any, param_group_list: Any) -> bool:
        known = {id(p) for group in param_group_list for p in group["params"]}
        return bool({id(p) for p in param_group["params"]} & known)

    def add_params(self, params: list[Any], module: nn.Module, prefix: str = "", is_dcn_module: Any = None) -> None:
        options = {key: value for key, value in self.optimizer_cfg.items() if key != "type"}
        params.extend(as_groups(ours.parameters(module, options, dict(self.paramwise_cfg), None)))

    def groups(self, model: nn.Module) -> list[Any]:
        """The groups that `add_params` gives."""
        params: list[Any] = []
        self.add_params(params, getattr(model, "module", model))
        return params

    def __call__(self, model: nn.Module) -> Any:
        model = getattr(model, "module", model)
        options = {key: value for key, value in self.optimizer_cfg.items() if key != "type"}
        kind = self.optimizer_cfg["type"]
        factory = OPTIMIZERS.get(kind) or ours.optimizers()[kind]
        optimizer = factory(self.groups(model) if self.paramwise_cfg else model.parameters(), **options)
        return OptimWrapper(optimizer) if "optimizer" in self.optim_wrapper_cfg else optimizer


class LayerDecayConstructor(DefaultOptimizerConstructor):
    """Rates that fall with the depth of a layer."""

    def add_params(self, params: list[Any], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        options = {key: value for key, value in self.optimizer_cfg.items() if key != "type"}
        params.extend(as_groups(ours.parameters(module, options, dict(self.paramwise_cfg), type(self).__name__)))


DefaultOptimWrapperConstructor = ForceDefaultOptimWrapperConstructor = DefaultOptimizerConstructor
LearningRateDecayOptimizerConstructor = type("LearningRateDecayOptimizerConstructor", (LayerDecayConstructor,), {})
LayerDecayOptimizerConstructor = type("LayerDecayOptimizerConstructor", (LayerDecayConstructor,), {})


class OptimWrapperDict(dict[str, OptimWrapper]):
    """Optimizers by the names of their parts."""

    def __init__(self, **wrappers: OptimWrapper) -> None:
        super().__init__(wrappers)

    def step(self, **kwargs: Any) -> None:
        for wrapper in self.values():
            wrapper.optimizer.step()

    def zero_grad(self, **kwargs: Any) -> None:
        for wrapper in self.values():
            wrapper.optimizer.zero_grad()


class _ParamScheduler:
    """A value of an optimizer's groups that a subclass computes for each step, in `_get_value`."""

    def __init__(
        self, optimizer: Any, param_name: str, begin: int = 0, end: int = 10**9, last_step: int = -1,
        by_epoch: bool = True, verbose: bool = False,
    ) -> None:  # fmt: skip
        if begin >= end:
            raise ValueError(f"end should be larger than begin, but got begin={begin}, end={end}")
        self.optimizer, self.param_name, self.by_epoch, self.verbose = optimizer, param_name, by_epoch, verbose
        self.begin, self.end, self.last_step = begin, end, last_step
        for group in optimizer.param_groups:
            group.setdefault(f"initial_{param_name}", group[param_name])
        self.base_values = [group[f"initial_{param_name}"] for group in optimizer.param_groups]
        self._global_step = -1
        self.step()

    def _get_value(self) -> list[float]:
        raise NotImplementedError

    def get_last_value(self) -> list[float]:
        return self._last_value

    def step(self) -> None:
        self._global_step += 1
        if self.begin <= self._global_step < self.end:
            self.last_step += 1
            for group, value in zip(self.optimizer.param_groups, self._get_value(), strict=True):
                group[self.param_name] = value
        self._last_value = [group[self.param_name] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


class LRSchedulerMixin:
    """A scheduler of learning rates."""

    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(optimizer, "lr", *args, **kwargs)  # type: ignore[call-arg]


def as_groups(parameters: list[Any]) -> list[dict[str, Any]]:
    return [item if isinstance(item, dict) else {"params": [item]} for item in parameters]


def user_parameters(constructor: Any) -> Any:
    """A function of a model, options and `paramwise` that gives the groups of a user's constructor to the product."""

    def parameters(model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any]) -> list[Any]:
        made = constructor({"optimizer": {"type": "AdamW", **options}, "type": "OptimWrapper", **options}, paramwise)
        if hasattr(made, "add_params") and type(made).__call__ is DefaultOptimizerConstructor.__call__:
            return made.groups(model)
        optimizer = made(model)
        return getattr(optimizer, "optimizer", optimizer).param_groups

    return parameters


def register_constructor(name: str, item: Any) -> None:
    ours.USER_CONSTRUCTORS[name] = user_parameters(item)


def register_optimizer(name: str, item: Any) -> None:
    ours.USER_OPTIMIZERS[name] = item


KEEPERS["optimizer constructor"] = (register_constructor,)
KEEPERS["optimizer"] = (register_optimizer,)
ORIGINALS["optimizer"] = lambda name: getattr(torch.optim, name, None)
ORIGINALS["optimizer constructor"] = lambda name: globals().get(name) if name in ours.CONSTRUCTORS else None


def build_optimizer(model: nn.Module, cfg: Any) -> Any:
    """An optimizer of a model, or one for each of its parts that the config names."""
    if not hasattr(cfg, "get") or "type" not in cfg:
        return {name: build_optimizer(getattr(model, name), own) for name, own in cfg.items()}
    options = dict(cfg)
    constructor = options.pop("constructor", "DefaultOptimizerConstructor")
    paramwise = options.pop("paramwise_cfg", None)
    return OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)(options, paramwise)(getattr(model, "module", model))


build_optim_wrapper = build_optimizer_constructor = build_optimizer


def build_pixel_sampler(cfg: Any, **default_args: Any) -> Any:
    """A sampler of pixels from its config."""
    from terrazzo.compat.registry import MODELS

    found = MODELS.get(cfg["type"])
    users = cfg["type"] in MODELS.module_dict
    return MODELS.build(cfg, default_args=default_args if users else None) if found else None
