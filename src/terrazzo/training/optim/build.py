"""Optimizers and their parameter groups."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from terrazzo.arguments import check_arguments, placed
from terrazzo.config.experiment import OptimizerSettings
from terrazzo.errors import UserError, nearest
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
# by name, from registered modules: what gives the groups of (model, options, paramwise), and optimizers
USER_CONSTRUCTORS: dict[str, Callable[..., Any]] = {}
USER_OPTIMIZERS: dict[str, Any] = {}
MULTIPLIERS = ("bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult", "flat_decay_mult")
CUSTOM = ("lr_mult", "decay_mult")
PARAMWISE_KEYS = ("custom_keys", "bypass_duplicate", *MULTIPLIERS)
LAYER_DECAY_KEYS = ("num_layers", "decay_rate", "layer_decay_rate", "decay_type")
DECAY_TYPES = ("layer_wise", "stage_wise")


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
    check_arguments(factory, {"params": []} | options, kind, "optim_wrapper.optimizer", spec)
    options = scaled_defaults(factory) | options
    if factory is getattr(torch.optim, "Muon", None):
        check_matrices(model)
    with placed(kind, "optim_wrapper.optimizer", spec):
        return factory(parameters(model, options, paramwise or {}, constructor), **options)


def scaled_defaults(factory: Any) -> dict[str, Any]:
    """The learning rate and decay of an optimizer whose config has none, for the multipliers of `paramwise`."""
    usual = {name: item.default for name, item in inspect.signature(factory).parameters.items()}
    return {name: usual[name] for name in ("lr", "weight_decay") if isinstance(usual.get(name), (int, float))}


def freeze_unscaled(model: nn.Module, settings: OptimizerSettings, note: Callable[[str], object]) -> None:
    """Freeze the weights whose learning rate is multiplied by 0, as a schedule with a floor would move them.

    Batch norms keep following the data, which `note` is told.
    """
    found = parameters(model, {"lr": 1.0}, settings.paramwise or {}, settings.constructor)
    still = [one for group in found if isinstance(group, dict) and not group["lr"] for one in group["params"]]
    for parameter in still:
        parameter.requires_grad_(False)
    if still:
        note(
            f"lr_mult=0: {len(still)} weight tensors are frozen; statistics of batch norms still follow the data "
            "(`freeze: [backbone]` keeps them too)"
        )


def optimizers() -> dict[str, type[Optimizer]]:
    """Every optimizer by its name in configs."""
    found = {
        name: item
        for name, item in vars(torch.optim).items()
        if inspect.isclass(item) and issubclass(item, Optimizer) and item is not Optimizer
    }
    return found | {"MuonWithAdamW": MuonWithAdamW, "AdamWScheduleFree": AdamWScheduleFree} | USER_OPTIMIZERS


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
    if name in USER_CONSTRUCTORS:
        return USER_CONSTRUCTORS[name](model, options, paramwise)
    if name not in CONSTRUCTORS:
        raise UserError(f"optim_wrapper.constructor: none is called '{constructor}'{nearest(name, CONSTRUCTORS)}")
    by_layer = "LayerDecay" in name or "RateDecay" in name
    if not by_layer:
        paramwise = {key: value for key, value in paramwise.items() if key != "force_default_settings"}
    known = LAYER_DECAY_KEYS if by_layer else PARAMWISE_KEYS
    for key in paramwise:
        if key not in known:
            raise UserError(f"paramwise_cfg has no key '{key}' with {name}{nearest(key, known)}")
    check_multipliers(paramwise)
    if by_layer:
        return list(decayed_groups(model, options, paramwise))
    if paramwise:
        return list(groups(model, options, paramwise))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def check_multipliers(paramwise: dict[str, Any]) -> None:
    """Raise UserError for a multiplier that is not a number."""
    custom = paramwise.get("custom_keys") or {}
    if not isinstance(custom, dict) or not all(isinstance(item, dict) for item in custom.values()):
        raise UserError(
            f"paramwise_cfg.custom_keys has parts of names with `lr_mult` and `decay_mult` below them, not {custom!r}"
        )
    own = {f"custom_keys.{part}.{key}": item[key] for part, item in custom.items() for key in CUSTOM if key in item}
    for key, value in ({key: paramwise[key] for key in MULTIPLIERS if key in paramwise} | own).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"paramwise_cfg.{key}: {value!r} is not a number from 0 on")


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
    if isinstance(module, NORMS):
        return 1.0, paramwise.get("norm_decay_mult", 1.0)
    is_depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups > 1
    decay = paramwise.get("dwconv_decay_mult", 1.0) if is_depthwise else 1.0
    if name.endswith("bias"):
        return paramwise.get("bias_lr_mult", 1.0), paramwise.get("bias_decay_mult", decay)
    return 1.0, paramwise.get("flat_decay_mult", decay) if parameter.ndim == 1 else decay


def decayed_groups(model: nn.Module, options: dict[str, Any], paramwise: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One group per depth, with and without weight decay; one-dimensional weights have none.

    `paramwise` has `num_layers`, `decay_rate` and `decay_type` ("layer_wise", "stage_wise"). Raises UserError.
    """
    rate = paramwise.get("decay_rate", paramwise.get("layer_decay_rate"))
    kind = paramwise.get("decay_type", "layer_wise")
    if rate is None or "num_layers" not in paramwise:
        raise UserError("paramwise_cfg needs num_layers and decay_rate with this constructor")
    if kind not in DECAY_TYPES:
        raise UserError(f"paramwise_cfg.decay_type: none is called '{kind}'{nearest(str(kind), DECAY_TYPES)}")
    last = int(paramwise["num_layers"]) + 1
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(".bias")
            members.setdefault((depth(name, last, kind == "stage_wise"), decays), []).append(parameter)
    for (layer, decays), parameters in members.items():
        group: dict[str, Any] = {"params": parameters, "lr": options["lr"] * rate ** (last - layer)}
        if not decays:
            group["weight_decay"] = 0.0
        yield group


def depth(name: str, last: int, by_stage: bool) -> int:
    """A weight's distance from the input: 0 for what reads the image, `last` for the head."""
    if not name.startswith("backbone."):
        return last
    inner = name.removeprefix("backbone.")
    if inner.startswith(("cls_token", "mask_token", "pos_embed", "patch_embed", "rel_pos_bias")):
        return 0
    if found := re.match(r"layers\.(\d+)\.", inner):
        return int(found[1]) + 1
    if found := re.match(r"downsample_layers\.(\d+)\.", inner):
        stage = int(found[1])
        return 0 if by_stage or stage == 0 else last - 1 if stage == 3 else stage + 1
    if found := re.match(r"stages\.(\d+)\.(\d+)\.", inner):
        stage, block = int(found[1]), int(found[2])
        if by_stage or stage < 2:
            return stage + 1
        return 3 + block // 3 if stage == 2 else last - 1
    return last
