"""`BaseModule` and the initialisation of weights by `init_cfg`."""

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from terrazzo.compat import registry
from terrazzo.compat.files.files import _load_checkpoint_with_prefix, load_checkpoint, load_state_dict


class BaseModule(nn.Module):
    """A module with `init_cfg`, by which `init_weights` initialises it and then what is inside, once."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self._is_init, self.init_cfg = False, copy.deepcopy(init_cfg)

    is_init = property(lambda self: self._is_init, lambda self, value: setattr(self, "_is_init", value))

    def init_weights(self) -> None:
        """Initialise by `init_cfg`, then the children by their own; pretrained weights come last."""
        if self._is_init:
            return
        specs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg] * bool(self.init_cfg)
        late = [spec for spec in specs if kind_of(spec) == "Pretrained"]
        initialize(self, [spec for spec in specs if kind_of(spec) != "Pretrained"])
        if not (late and isinstance(self.init_cfg, Mapping)):  # what a file alone holds must not be overwritten
            for child in self.children():
                if hasattr(child, "init_weights") and not getattr(child, "is_init", False):
                    call_init_weights(child)
        initialize(self, late)
        self._is_init = True


class Start(nn.Module):
    """The end of the way around the constructors of terrazzo's classes, which come after it among a class's bases."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


def call_init_weights(module: Any) -> None:
    """Call a module's `init_weights`, which until 0.12 took the file of its weights."""
    takes = inspect.signature(module.init_weights).parameters
    try:
        module.init_weights(*[None] * ("pretrained" in takes))
    except (AttributeError, NotImplementedError) as problem:  # in a branch that its author, with a file, never ran
        reason = str(problem) or type(problem).__name__
        warnings.warn(f"init_weights of {type(module).__name__} fails without a file of weights: {reason}")


def _with_init_cfg(base: type) -> Any:
    """A container of torch as a BaseModule."""

    def init(self: Any, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        BaseModule.__init__(self, init_cfg)
        base.__init__(self, *args, **kwargs)  # type: ignore[misc]

    return type(base.__name__, (BaseModule, base), {"__init__": init, "__module__": __name__})


Sequential, ModuleList, ModuleDict = map(_with_init_cfg, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


def _weighted(start: Callable[..., Any], count: int = 0, uniform: Any = None, **defaults: Any) -> Callable[..., None]:
    """A function of a module that starts its weight with `start`, of `count` arguments, its bias with a constant."""
    names = [*inspect.signature(start).parameters][1 : count + 1]

    def init(module: nn.Module, *args: Any, bias: float = 0, distribution: str = "normal", **kwargs: Any) -> None:
        kwargs = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        if getattr(module, "weight", None) is not None:
            (uniform if distribution == "uniform" else start)(module.weight, **kwargs)
        if getattr(module, "bias", None) is not None:
            nn.init.constant_(module.bias, args[count] if len(args) > count else bias)  # type: ignore[arg-type]

    return init


constant_init, normal_init = _weighted(nn.init.constant_, 1), _weighted(nn.init.normal_, 2)
trunc_normal_init, uniform_init = _weighted(nn.init.trunc_normal_, 4), _weighted(nn.init.uniform_, 2)
xavier_init = _weighted(nn.init.xavier_normal_, 1, nn.init.xavier_uniform_)
kaiming_init = _weighted(nn.init.kaiming_normal_, 3, nn.init.kaiming_uniform_, mode="fan_out", nonlinearity="relu")
caffe2_xavier_init = _weighted(nn.init.kaiming_uniform_, a=1, mode="fan_in", nonlinearity="leaky_relu")
# `type` of init_cfg -> what it does to a module
STARTS: dict[str, Callable[..., None]] = {
    "Constant": constant_init, "Xavier": xavier_init, "Normal": normal_init, "TruncNormal": trunc_normal_init,
    "Uniform": uniform_init, "Kaiming": kaiming_init, "Caffe2Xavier": caffe2_xavier_init,
}  # fmt: skip
# their classes, which name them in `init_cfg` too
TABLE: dict[str, Any] = {f"{kind}Init": type(f"{kind}Init", (), {"kind": kind}) for kind in (*STARTS, "Pretrained")}
TABLE["bias_init_with_prob"] = lambda prior_prob: -math.log((1 - prior_prob) / prior_prob)
TABLE["trunc_normal_"] = nn.init.trunc_normal_


def kind_of(spec: Any) -> str:
    """The name of the start that a spec has as its type."""
    kind = TABLE.get(spec.get("type"), spec.get("type"))
    return getattr(kind, "kind", kind)


def is_init_cfg(spec: Any) -> bool:
    """Report whether a config says how weights start."""
    return isinstance(spec, (list, tuple)) or (isinstance(spec, Mapping) and f"{kind_of(spec)}Init" in TABLE)


def initialize(module: nn.Module, init_cfg: Any) -> None:
    """Start the layers in a module that an `init_cfg` names by type (`layer`) or attribute (`override`)."""
    for spec in [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg:
        options = {key: value for key, value in spec.items() if key not in ("type", "override", "layer", "_scope_")}
        kind, overrides, layers = kind_of(spec), spec.get("override") or [], spec.get("layer") or []
        if kind == "Pretrained":
            prefix, path = options.get("prefix"), options["checkpoint"]
            if prefix is None:
                load_checkpoint(module, path)
            else:
                load_state_dict(module, _load_checkpoint_with_prefix(prefix, path))
        elif kind in STARTS:
            if layers:
                start_layers(module, STARTS[kind], options, [layers] if isinstance(layers, str) else layers)
            for own in [overrides] if isinstance(overrides, Mapping) else overrides:
                own_options = {key: value for key, value in own.items() if key not in ("name", "type", "layer")}
                start = STARTS[own.get("type", kind)]
                start_layers(getattr(module, own["name"]), start, own_options if "type" in own else options, ())
        elif (found := registry.TABLE["WEIGHT_INITIALIZERS"].get(kind)) is not None:
            found(**options)(module)
        else:
            raise KeyError(f"{kind} is not in the initializer registry: {', '.join(STARTS)}")


def start_layers(module: nn.Module, start: Callable[..., None], options: Any, layers: Sequence[str]) -> None:
    """Start the layers of some types inside a module; without types, whatever has a weight."""
    options = dict(options)
    if (bias_prob := options.pop("bias_prob", None)) is not None:
        options["bias"] = TABLE["bias_init_with_prob"](bias_prob)
    if start is constant_init:
        options.setdefault("val", 0)
    for part in module.modules():
        if not layers or {kind.__name__ for kind in type(part).__mro__[:-2]} & set(layers):
            start(part, **options)


def calls(cls: type, name: str) -> bool:
    """Report whether another method of a user's class calls one of this name."""
    bodies = [vars(base) for base in cls.__mro__ if not base.__module__.startswith(("terrazzo.", "torch."))]
    methods = [item for body in bodies for key, item in body.items() if key != name and inspect.isfunction(item)]
    return any(name in method.__code__.co_names for method in methods)


def overrides(instance: Any, name: str) -> bool:
    """Report whether a user's class has its own method of this name."""
    owner = next((cls for cls in type(instance).__mro__ if name in vars(cls)), None)
    return owner is not None and not owner.__module__.startswith(("terrazzo.", "torch."))
