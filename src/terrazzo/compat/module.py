"""`BaseModule` and the initialisation of weights by `init_cfg`."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from terrazzo.compat.registry import WEIGHT_INITIALIZERS


class BaseModule(nn.Module):
    """A module with `init_cfg`, by which `init_weights` initialises it and then what is inside, once."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self._is_init = False
        self.init_cfg = copy.deepcopy(init_cfg)

    is_init = property(lambda self: self._is_init, lambda self, value: setattr(self, "_is_init", value))

    def init_weights(self) -> None:
        """Initialise by `init_cfg`, then the children by their own; pretrained weights come last."""
        if self._is_init:
            return
        specs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg] * bool(self.init_cfg)
        late = [spec for spec in specs if spec["type"] == "Pretrained"]
        if early := [spec for spec in specs if spec["type"] != "Pretrained"]:
            initialize(self, early)
        if specs and not early and isinstance(self.init_cfg, Mapping):
            initialize(self, late)
            self._is_init = True
            return  # what the file holds must not be overwritten
        init_children(self)
        if late:
            initialize(self, late)
        self._is_init = True


def init_children(module: nn.Module) -> None:
    """Call `init_weights` of each child that has it, once."""
    for child in module.children():
        if hasattr(child, "init_weights") and not getattr(child, "is_init", False):
            child.init_weights()  # type: ignore[operator]


def with_init_cfg(base: type) -> Any:
    """A container of torch as a BaseModule."""

    def init(self: Any, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        BaseModule.__init__(self, init_cfg)
        base.__init__(self, *args, **kwargs)  # type: ignore[misc]

    return type(base.__name__, (BaseModule, base), {"__init__": init, "__module__": __name__})


Sequential, ModuleList = with_init_cfg(nn.Sequential), with_init_cfg(nn.ModuleList)
ModuleDict = with_init_cfg(nn.ModuleDict)

# Starting values


def weighted(start: Callable[..., Any], count: int = 0) -> Callable[..., None]:
    """A function of a module that starts its weight with `start`, of `count` arguments, its bias with a constant."""
    names = [*inspect.signature(start).parameters][1 : count + 1]

    def init(module: nn.Module, *args: Any, bias: float = 0, **kwargs: Any) -> None:
        kwargs.update(zip(names, args, strict=False))
        if getattr(module, "weight", None) is not None:
            start(module.weight, **kwargs)
        if getattr(module, "bias", None) is not None:
            nn.init.constant_(module.bias, args[count] if len(args) > count else bias)  # type: ignore[arg-type]

    return init


constant_init, normal_init = weighted(nn.init.constant_, 1), weighted(nn.init.normal_, 2)
trunc_normal_init, uniform_init = weighted(nn.init.trunc_normal_, 4), weighted(nn.init.uniform_, 2)


def xavier_init(module: nn.Module, gain: float = 1, bias: float = 0, distribution: str = "normal") -> None:
    start = nn.init.xavier_uniform_ if distribution == "uniform" else nn.init.xavier_normal_
    weighted(start)(module, gain=gain, bias=bias)


def kaiming_init(
    module: nn.Module, a: float = 0, mode: str = "fan_out", nonlinearity: str = "relu", bias: float = 0,
    distribution: str = "normal",
) -> None:  # fmt: skip
    start = nn.init.kaiming_uniform_ if distribution == "uniform" else nn.init.kaiming_normal_
    weighted(start)(module, a=a, mode=mode, nonlinearity=nonlinearity, bias=bias)


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Xavier initialisation as Caffe2 has it: uniform, of the fan-in alone."""
    kaiming_init(module, 1, "fan_in", "leaky_relu", bias, "uniform")


def bias_init_with_prob(prior_prob: float) -> float:
    """The bias at which a sigmoid gives `prior_prob`."""
    return -math.log((1 - prior_prob) / prior_prob)


def trunc_normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Any:
    return nn.init.trunc_normal_(tensor, mean, std, a, b)


# `type` of init_cfg -> what it does to a module
STARTS: dict[str, Callable[..., None]] = {
    "Constant": constant_init,
    "Xavier": xavier_init,
    "Normal": normal_init,
    "TruncNormal": trunc_normal_init,
    "Uniform": uniform_init,
    "Kaiming": kaiming_init,
    "Caffe2Xavier": caffe2_xavier_init,
}


class BaseInit:
    """A way to start modules: `init(module)`."""

    kind: str

    def __init__(self, **options: Any) -> None:
        self.options = options
        vars(self).update(options)

    def __call__(self, module: nn.Module) -> None:
        initialize(module, {"type": self.kind, **self.options})


for _kind in (*STARTS, "Pretrained"):
    globals()[f"{_kind}Init"] = type(f"{_kind}Init", (BaseInit,), {"kind": _kind, "__module__": __name__})


def update_init_info(module: nn.Module, init_info: str) -> None:
    """Nothing: terrazzo keeps no record of how a parameter started."""


class BaseAveragedModel(nn.Module):
    """A copy of a model whose parameters average the model's; a subclass has `avg_func(averaged, source, steps)`."""

    def __init__(self, model: nn.Module, interval: int = 1, device: Any = None, update_buffers: bool = False) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.interval, self.update_buffers, self.steps = interval, update_buffers, 0

    def avg_func(self, averaged_param: Any, source_param: Any, steps: int) -> None:
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        source = {**dict(model.named_parameters()), **(dict(model.named_buffers()) if self.update_buffers else {})}
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name, value in source.items():
            if self.steps == 0 or not value.is_floating_point():
                own[name].data.copy_(value.data)
            elif self.steps % self.interval == 0:
                self.avg_func(own[name].data, value.data, self.steps)
        self.steps += 1


class ExponentialMovingAverage(BaseAveragedModel):
    """averaged = (1 - momentum) * averaged + momentum * source."""

    def __init__(self, model: nn.Module, momentum: float = 0.0002, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.momentum = momentum

    def avg_func(self, averaged_param: Any, source_param: Any, steps: int) -> None:
        averaged_param.lerp_(source_param, self.momentum)


def initialize(module: nn.Module, init_cfg: Any) -> None:
    """Start the layers in a module that an `init_cfg` names by type (`layer`) or attribute (`override`)."""
    for spec in [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg:
        options = {key: value for key, value in spec.items() if key not in ("override", "layer", "_scope_")}
        kind = options.pop("type")
        overrides = spec.get("override")
        if kind == "Pretrained":
            load_pretrained(module, **options)
            continue
        if kind not in STARTS:
            found = WEIGHT_INITIALIZERS.get(kind)
            if found is None:
                raise KeyError(f"{kind} is not in the initializer registry: {', '.join(STARTS)}")
            found(**{key: value for key, value in spec.items() if key not in ("type", "override")})(module)
            continue
        layers = spec.get("layer") or []
        layers = [layers] if isinstance(layers, str) else layers
        if layers or not overrides:
            start_layers(module, STARTS[kind], options, layers)
        for own in [overrides] if isinstance(overrides, Mapping) else overrides or []:
            part = getattr(module, own["name"])
            start = STARTS[own.get("type", kind)]
            own_options = {key: value for key, value in own.items() if key not in ("name", "type", "layer")}
            start_layers(part, start, own_options if "type" in own else options, ())


def start_layers(module: nn.Module, start: Callable[..., None], options: Any, layers: Sequence[str]) -> None:
    """Start the layers of some types inside a module; without types, whatever has a weight."""
    bias_prob = options.get("bias_prob")
    options = {key: value for key, value in options.items() if key != "bias_prob"}
    if bias_prob is not None:
        options["bias"] = bias_init_with_prob(bias_prob)
    if start is constant_init:
        options.setdefault("val", 0)
    for part in module.modules():
        names = {part_type.__name__ for part_type in type(part).__mro__[:-2]}
        if (
            not layers
            or names & set(layers)
            or any("_BatchNorm" in (name,) and "BatchNorm" in str(names) for name in layers)
        ):
            start(part, **options)


def load_pretrained(module: nn.Module, checkpoint: str, prefix: str | None = None, map_location: Any = "cpu") -> None:
    """Load a file's weights, or those under a prefix."""
    from terrazzo.compat.weights import _load_checkpoint_with_prefix, load_checkpoint, load_state_dict

    if prefix is None:
        load_checkpoint(module, checkpoint, map_location="cpu", strict=False)
    else:
        load_state_dict(module, _load_checkpoint_with_prefix(prefix, checkpoint, "cpu"), strict=False)
