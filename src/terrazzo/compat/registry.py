"""MMSegmentation's registries: those of models, data and metrics share their tables with terrazzo's own."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from terrazzo import registry as ours
from terrazzo.compat.config import ConfigDict
from terrazzo.errors import UserError, nearest

# kind of registry -> how terrazzo's registry builds what users register in it; set by the parts that do it
BUILDS: dict[str, Callable[..., Any]] = {}
ORIGINALS: dict[str, Callable[[str], Any]] = {}  # kind -> the class that an official name stands for there, or None


class WrongArgument(UserError, AssertionError, TypeError, KeyError):
    """An argument that an official class does not take: an error of each type that is expected there."""

    __str__ = Exception.__str__


@contextmanager
def arguments_of(kind: str) -> Iterator[None]:
    """Turn what an official class raises for its arguments into a WrongArgument."""
    try:
        yield
    except WrongArgument:
        raise
    except (UserError, TypeError, AssertionError) as problem:
        raise WrongArgument(str(problem) if kind in str(problem) else f"{kind}: {problem}") from problem


class Registry:
    """A table from names to classes that `build` makes objects of.

    A registry whose `target` is one of terrazzo's puts what users register into that one as well, where a config finds
    it. Names are looked up without their scope, then among the official types, then in the parent.
    """

    def __init__(
        self,
        name: str,
        build_func: Callable[..., Any] | None = None,
        parent: Registry | None = None,
        scope: str | None = None,
        locations: Any = (),
        target: ours.Registry | None = None,
    ) -> None:
        self._name, self.parent, self._scope = name, parent, scope or "mmseg"
        self.kind: str = name if parent is None else parent.kind
        self.build_func = build_func or (parent.build_func if parent is not None else build_from_cfg)  # type: ignore[has-type]
        self.target: ours.Registry | None = target if target is not None or parent is None else parent.target
        self._module_dict: dict[str, Any] = {} if parent is None else parent._module_dict
        self.locations = locations
        self.children: dict[str, Registry] = {}

    name = property(lambda self: self._name)
    scope = property(lambda self: self._scope)
    module_dict = property(lambda self: self._module_dict)

    def __len__(self) -> int:
        return len(self._module_dict)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._module_dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name}, items={self._module_dict})"

    def get(self, key: str) -> Any:
        """The class called `key`, with or without a scope, or None."""
        bare = str(key).rpartition(".")[2]
        found = self._module_dict.get(bare)
        if found is None and self.kind in ORIGINALS:
            found = ORIGINALS[self.kind](str(key))
        return found

    def register_module(self, name: Any = None, force: bool = False, module: Any = None, **kwargs: Any) -> Any:
        """Put a class into the table, under its own name or others; also a decorator."""
        if inspect.isclass(name) or inspect.isfunction(name):
            name, module = None, name

        def add(item: Any) -> Any:
            for key in [name] if isinstance(name, str) else name or [item.__name__]:
                taken = self._module_dict.get(key)
                if taken is not None and not force and not is_same(taken, item):
                    raise KeyError(f"{key} is already registered in {self._name} at {taken.__module__}")
                self._module_dict[key] = item
                if self.kind == "dataset":
                    from terrazzo.compat.datasets import register_dataset

                    ours.DATASETS.register_raw(register_dataset(item, key), key, BUILDS["model"])
                elif self.target is not None:
                    self.target.register_raw(item, key, BUILDS[self.kind])
                for keep in KEEPERS.get(self.kind, ()):
                    keep(key, item)
            return item

        return add if module is None else add(module)

    _register_module = register_module

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an object of a config with a `type`."""
        return self.build_func(cfg, *args, registry=self, **kwargs)  # type: ignore[misc]


def is_same(one: Any, other: Any) -> bool:
    """Report whether two classes are one definition, imported again or under another module's name."""
    if ours.same_definition(one, other):
        return True
    files = {getattr(sys.modules.get(item.__module__), "__file__", None) for item in (one, other)}
    return len(files) == 1 and None not in files and one.__qualname__ == other.__qualname__


KEEPERS: dict[str, tuple[Callable[[str, Any], Any], ...]] = {}  # registry -> who else is told


def build_from_cfg(cfg: Any, registry: Any, default_args: Any = None, **kwargs: Any) -> Any:
    """Make an object of a config whose `type` is a class, or a name in a registry."""
    if not isinstance(cfg, Mapping):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    options = ConfigDict(default_args or {}) | dict(cfg)
    if "type" not in options:
        raise KeyError(f'`cfg` or `default_args` must contain the key "type", but got {cfg}')
    kind = options.pop("type")
    options.pop("_scope_", None)
    found = registry.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise KeyError(f"{kind} is not in the {registry.name} registry{nearest(str(kind), registry.module_dict)}")
    return found(**{key: ConfigDict(value) if type(value) is dict else value for key, value in options.items()})


def build_model_from_cfg(cfg: Any, registry: Any, default_args: Any = None, **kwargs: Any) -> Any:
    """`build_from_cfg`, and for a list the parts one after the other."""
    if isinstance(cfg, (list, tuple)):
        from torch import nn

        return nn.Sequential(*[build_from_cfg(item, registry, default_args) for item in cfg])
    return build_from_cfg(cfg, registry, default_args)


MODELS = Registry("model", build_model_from_cfg, target=ours.MODELS)
BACKBONES = NECKS = HEADS = LOSSES = SEGMENTORS = ATTENTION = CLASSIFIERS = DETECTORS = MODELS
SHARED_HEADS = ROI_EXTRACTORS = MODELS
# layers, which a config of any model names
CONV_LAYERS, NORM_LAYERS = Registry("conv layer", parent=MODELS), Registry("norm layer", parent=MODELS)
ACTIVATION_LAYERS = Registry("activation layer", parent=MODELS)
PADDING_LAYERS = UPSAMPLE_LAYERS = PLUGIN_LAYERS = DROPOUT_LAYERS = POSITIONAL_ENCODING = MODELS
FEEDFORWARD_NETWORK = TRANSFORMER_LAYER = TRANSFORMER_LAYER_SEQUENCE = TRANSFORMER = MODELS
PIXEL_SAMPLERS = MODELS
# data and scores
DATASETS = Registry("dataset", target=ours.DATASETS)
PIPELINES = TRANSFORMS = Registry("transform", target=ours.TRANSFORMS)
METRICS = Registry("metric", target=ours.METRICS)
# what configures a run
HOOKS, RUNNERS, OPTIMIZERS = Registry("hook"), Registry("runner"), Registry("optimizer")
OPTIM_WRAPPER_CONSTRUCTORS = OPTIMIZER_BUILDERS = Registry("optimizer constructor")
OPTIM_WRAPPERS, PARAM_SCHEDULERS = Registry("optim wrapper"), Registry("parameter scheduler")
DATA_SAMPLERS = SAMPLERS = Registry("data sampler")
RUNNER_CONSTRUCTORS, LOOPS, WEIGHT_INITIALIZERS = Registry("r. constructor"), Registry("loop"), Registry("initializer")
VISUALIZERS, VISBACKENDS, LOG_PROCESSORS = Registry("visualizer"), Registry("vis_backend"), Registry("log_processor")
MODEL_WRAPPERS = MODULE_WRAPPERS = Registry("model wrapper")
TASK_UTILS = BBOX_ASSIGNERS = BBOX_SAMPLERS = BBOX_CODERS = MATCH_COST = IOU_CALCULATORS = Registry("task util")
EVALUATOR, INFERENCERS, FUNCTIONS = Registry("evaluator"), Registry("inferencer"), Registry("function")
STRATEGIES, PRIOR_GENERATORS, ANCHOR_GENERATORS = Registry("strategy"), TASK_UTILS, TASK_UTILS


def build_backbone(cfg: Any) -> Any:
    """Build a part of a model."""
    return MODELS.build(cfg)


build_neck = build_head = build_loss = build_backbone


def build_segmentor(cfg: Any, train_cfg: Any = None, test_cfg: Any = None) -> Any:
    """Build a segmentor; `train_cfg` and `test_cfg` are its own or these."""
    return MODELS.build(cfg, default_args={"train_cfg": train_cfg, "test_cfg": test_cfg})


build_model = build_segmentor
