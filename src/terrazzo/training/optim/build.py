"""Optimizers and their parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from terrazzo.errors import UserError, nearest
from terrazzo.training.optim.layer_decay import decayed_groups
from terrazzo.training.optim.muon import MuonWithAdamW
from terrazzo.training.optim.schedule_free import AdamWScheduleFree

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
CONSTRUCTORS = (
    "DefaultOptimWrapperConstructor",
    "DefaultOptimizerConstructor",
    "ForceDefaultOptimWrapperConstructor",
    "LearningRateDecayOptimizerConstructor",
    "LayerDecayOptimizerConstructor",
)
PARAMWISE_KEYS = (
    "custom_keys",
    "bias_lr_mult",
    "bias_decay_mult",
    "norm_decay_mult",
    "dwconv_decay_mult",
    "flat_decay_mult",
    "bypass_duplicate",
)


def build_optimizer(
    model: nn.Module, spec: dict[str, Any], paramwise: dict[str, Any] | None = None, constructor: str | None = None
) -> Optimizer:
    """One of our own optimizers or any of torch.optim by name; `paramwise` scales rate and decay of some parameters.

    `constructor` is one of CONSTRUCTORS, which decide how `paramwise` is read. Raises UserError.
    """
    options = dict(spec)
    kind = str(options.pop("type", "")).rpartition(".")[2]
    known_types = optimizers()
    if kind not in known_types:
        raise UserError(f"optimizer: neither terrazzo nor torch.optim has a '{kind}'{nearest(kind, known_types)}")
    factory: Any = known_types[kind]
    known = inspect.signature(factory).parameters
    for key in options:
        if key not in known:
            raise UserError(f"optimizer: {kind} has no argument '{key}'{nearest(key, known)}")
    if factory is getattr(torch.optim, "Muon", None):
        check_matrices(model)
    return factory(parameters(model, options, paramwise or {}, constructor), **options)


def optimizers() -> dict[str, type[Optimizer]]:
    """Every optimizer by its name in configs."""
    found = {
        name: item
        for name, item in vars(torch.optim).items()
        if inspect.isclass(item) and issubclass(item, Optimizer) and item is not Optimizer
    }
    return found | {"MuonWithAdamW": MuonWithAdamW, "AdamWScheduleFree": AdamWScheduleFree}


def check_matrices(model: nn.Module) -> None:
    """Raise UserError unless every trained parameter is a matrix, as torch.optim.Muon requires."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.ndim != 2:
            shape = "x".join(map(str, parameter.shape))
            raise UserError(
                f"optimizer: torch.optim.Muon takes only two-dimensional parameters, and {name} is {shape}; "
                "MuonWithAdamW updates matrices and convolutions as Muon does, and the rest with AdamW"
            )


def parameters(
    model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any], constructor: str | None
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The trained parameters, or groups of them with different rates and decays. Raises UserError."""
    name = str(constructor or CONSTRUCTORS[0]).rpartition(".")[2]
    if name not in CONSTRUCTORS:
        raise UserError(f"optim_wrapper.constructor: none is called '{constructor}'{nearest(name, CONSTRUCTORS)}")
    if "LayerDecay" in name or "RateDecay" in name:
        return list(decayed_groups(model, options, paramwise))
    paramwise = {key: value for key, value in paramwise.items() if key != "force_default_settings"}
    for key in paramwise:
        if key not in PARAMWISE_KEYS:
            raise UserError(f"paramwise_cfg has no key '{key}'{nearest(key, PARAMWISE_KEYS)}")
    if paramwise:
        return list(groups(model, options, paramwise))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def groups(model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One group for each pair of multipliers of learning rate and weight decay."""
    base_rate, base_decay = options.get("lr"), options.get("weight_decay")
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                members.setdefault(multipliers(module, name, parameter, paramwise), []).append(parameter)
    for (rate, decay), parameters in members.items():
        group: dict[str, Any] = {"params": parameters}
        if base_rate is not None:
            group["lr"] = base_rate * rate
        if base_decay is not None:
            group["weight_decay"] = base_decay * decay
        yield group


def multipliers(
    module: nn.Module, name: str, parameter: nn.Parameter, paramwise: dict[str, Any]
) -> tuple[float, float]:
    """(learning rate, weight decay) multipliers; the longest custom key in the name decides, else the kind of layer."""
    custom = paramwise.get("custom_keys") or {}
    for key in sorted(sorted(custom), key=len, reverse=True):
        if key in name:
            return custom[key].get("lr_mult", 1.0), custom[key].get("decay_mult", 1.0)
    is_norm = isinstance(module, NORMS)
    is_depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups > 1
    rate = decay = 1.0
    if name.endswith("bias") and not is_norm:
        rate = paramwise.get("bias_lr_mult", 1.0)
    if is_norm:
        decay = paramwise.get("norm_decay_mult", 1.0)
    elif is_depthwise:
        decay = paramwise.get("dwconv_decay_mult", 1.0)
        if name.endswith("bias") and "bias_decay_mult" in paramwise:
            decay = paramwise["bias_decay_mult"]
    elif name.endswith("bias"):
        decay = paramwise.get("bias_decay_mult", 1.0)
    if parameter.ndim == 1 and "flat_decay_mult" in paramwise and not is_norm and not name.endswith("bias"):
        decay = paramwise["flat_decay_mult"]
    return rate, decay
