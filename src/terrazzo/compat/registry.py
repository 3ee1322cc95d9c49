"""MMSegmentation's registries: those of models, data and metrics share their tables with terrazzo's own."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from terrazzo import registry as ours
from terrazzo.arguments import placed, signature
from terrazzo.compat.files.config import ConfigDict
from terrazzo.errors import UserError, nearest

# kind of registry -> how terrazzo's registry builds what users register in it; set by the parts that do it
BUILDS: dict[str, Callable[..., Any]] = {}
ORIGINALS: dict[str, Callable[[str], Any]] = {}  # kind -> the class that an official name stands for there, or None
KEEPERS: dict[str, tuple[Callable[[str, Any], Any], ...]] = {}  # kind -> who else is told


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


def wrapping(wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """A builder of a user's class from its section as written, inside terrazzo's `wrapper` of such objects."""

    def build(cls: Any, spec: Mapping[str, Any], where: str, **extra: Any) -> Any:
        options = {key: value for key, value in spec.items() if key not in ("type", "priority")}
        with placed(spec.get("type"), where, spec):
            return wrapper(cls(**ConfigDict(options)), **extra)

    return build


def drop_neutral(cls: Any, options: dict[str, Any]) -> None:
    """Take out of a section what the upgrade of a 0.x config adds for terrazzo's own classes, which a user's lacks."""
    ours = hasattr(cls, "_ours") or str(cls.__module__).startswith("terrazzo.")
    for key in {"weight_average", "patch_bias", "formula"} & options.keys():
        if not ours and key not in signature(cls).names:
            del options[key]


def build_from_cfg(cfg: Any, registry: Any, default_args: Any = None, **kwargs: Any) -> Any:
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
    drop_neutral(found, options)
    return found(**{key: ConfigDict(value) if type(value) is dict else value for key, value in options.items()})


def build_model_from_cfg(cfg: Any, registry: Any, default_args: Any = None, **kwargs: Any) -> Any:
    several = isinstance(cfg, (list, tuple))
    made = [build_from_cfg(item, registry, default_args) for item in (cfg if several else [cfg])]
    return nn.Sequential(*made) if several else made[0]


class Registry:
    """A table from names to classes that `build` makes objects of.

    A registry whose `target` is one of terrazzo's puts what users register into that one as well, where a config finds
    it. Names are looked up without their scope, then among the official types; a child shares its parent's table.
    """

    def __init__(
        self, name: str, build_func: Any = None, parent: "Registry | None" = None, scope: str | None = None,
        locations: Any = (), target: ours.Registry | None = None,
    ) -> None:  # fmt: skip
        self.name, self.parent, self.scope, self.locations = name, parent, scope or "mmseg", locations
        self.kind: str = name if parent is None else parent.kind
        self.build_func: Callable[..., Any] = build_func or (build_from_cfg if parent is None else parent.build_func)
        self.target: ours.Registry | None = target if target is not None or parent is None else parent.target
        self.module_dict: dict[str, Any] = {} if parent is None else parent.module_dict
        self.children: dict[str, Registry] = {}

    _module_dict = property(lambda self: self.module_dict)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Any:
        found = self.module_dict.get(key) or self.module_dict.get(str(key).rpartition(".")[2])
        for kind in (self.kind, f"layer of {self.kind}"):  # which modules do not have by their names
            found = ORIGINALS[kind](str(key)) if found is None and kind in ORIGINALS else found
        return found

    def register_module(self, name: Any = None, force: bool = False, module: Any = None, **kwargs: Any) -> Any:
        if inspect.isclass(name) or inspect.isfunction(name):
            name, module = None, name

        def add(item: Any) -> Any:
            for key in [name] if isinstance(name, str) else name or [item.__name__]:
                taken = self.module_dict.get(key)
                if taken is not None and not force and not is_same(taken, item):
                    raise KeyError(f"{key} is already registered in {self.name} at {taken.__module__}")
                self.module_dict[key] = item
                for keep in KEEPERS.get(self.kind, ()):
                    keep(key, item)
                if self.target is not None and self.kind in BUILDS:
                    self.target.register_raw(item, key, BUILDS[self.kind])
            return item

        return add if module is None else add(module)

    _register_module = register_module

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        return self.build_func(cfg, *args, registry=self, **kwargs)  # type: ignore[misc]


def is_same(one: Any, other: Any) -> bool:
    """Report whether two classes are one definition, imported again or under another module's name."""
    if ours.same_definition(one, other):
        return True
    files = {getattr(sys.modules.get(item.__module__), "__file__", None) for item in (one, other)}
    return len(files) == 1 and None not in files and one.__qualname__ == other.__qualname__


MODELS = Registry("model", build_model_from_cfg, target=ours.MODELS)
DATASETS = Registry("dataset", target=ours.DATASETS)
PIPELINES = TRANSFORMS = Registry("transform", target=ours.TRANSFORMS)
METRICS = Registry("metric", target=ours.METRICS)
HOOKS = Registry("hook", target=ours.HOOKS)
OPTIMIZERS = Registry("optimizer")
OPTIM_WRAPPER_CONSTRUCTORS = OPTIMIZER_BUILDERS = Registry("optimizer constructor")
# those of models under their other names; layers are among them, as any model's config may name one
OF_MODELS = (
    "BACKBONES NECKS HEADS LOSSES SEGMENTORS ATTENTION CLASSIFIERS DETECTORS SHARED_HEADS ROI_EXTRACTORS PLUGIN_LAYERS "
    "PADDING_LAYERS UPSAMPLE_LAYERS DROPOUT_LAYERS POSITIONAL_ENCODING FEEDFORWARD_NETWORK TRANSFORMER_LAYER "
    "TRANSFORMER TRANSFORMER_LAYER_SEQUENCE PIXEL_SAMPLERS"
)
CONV_LAYERS, NORM_LAYERS = Registry("conv layer", parent=MODELS), Registry("norm layer", parent=MODELS)
ACTIVATION_LAYERS = Registry("activation layer", parent=MODELS)
# those whose objects only users build; the parts of a run are terrazzo's
FURTHER = (
    "RUNNERS OPTIM_WRAPPERS PARAM_SCHEDULERS DATA_SAMPLERS RUNNER_CONSTRUCTORS LOOPS WEIGHT_INITIALIZERS VISUALIZERS "
    "VISBACKENDS LOG_PROCESSORS MODEL_WRAPPERS TASK_UTILS EVALUATOR INFERENCERS FUNCTIONS STRATEGIES"
)
TABLE: dict[str, Any] = dict.fromkeys(OF_MODELS.split(), MODELS)
TABLE |= {name: Registry(name.lower().replace("_", " ").rstrip("s")) for name in FURTHER.split()}
TABLE |= dict.fromkeys(("BBOX_ASSIGNERS", "BBOX_SAMPLERS", "BBOX_CODERS", "MATCH_COST"), TABLE["TASK_UTILS"])
TABLE |= dict.fromkeys(("IOU_CALCULATORS", "PRIOR_GENERATORS", "ANCHOR_GENERATORS"), TABLE["TASK_UTILS"])
TABLE |= {"SAMPLERS": TABLE["DATA_SAMPLERS"], "MODULE_WRAPPERS": TABLE["MODEL_WRAPPERS"]}
TABLE |= dict.fromkeys(("build_backbone", "build_neck", "build_head", "build_loss"), lambda cfg: MODELS.build(cfg))
# kinds of registries whose official types are no models, data or metrics, and the names of these types
OFFICIAL: dict[str, str] = {
    "optim wrapper": "OptimWrapper AmpOptimWrapper",
    "data sampler": "DefaultSampler InfiniteSampler",
    "loop": "IterBasedTrainLoop EpochBasedTrainLoop ValLoop TestLoop",
    "runner": "Runner IterBasedRunner EpochBasedRunner",
    "task util": "OHEMPixelSampler HungarianAssigner ClassificationCost CrossEntropyLossCost DiceCost",
    "visualizer": "Visualizer SegLocalVisualizer",
    "visbackend": "LocalVisBackend TensorboardVisBackend WandbVisBackend",
    "model wrapper": "MMDataParallel MMDistributedDataParallel DataParallel DistributedDataParallel",
    "log processor": "LogProcessor",
    "evaluator": "Evaluator",
    "function": "pseudo_collate default_collate",
}


def _original_of(kind: str) -> Callable[[str], Any]:
    """A function that looks an official type of a kind up among the names that the parts answer."""

    def original(name: str) -> Any:
        from terrazzo.compat.finder import own_names

        bare = name.rpartition(".")[2]
        return (own_names().get(bare) or ORIGINALS["model"](bare)) if bare in OFFICIAL[kind].split() else None

    return original


ORIGINALS |= {kind: _original_of(kind) for kind in OFFICIAL}


def build_segmentor(cfg: Any, train_cfg: Any = None, test_cfg: Any = None) -> Any:
    return MODELS.build(cfg, default_args={"train_cfg": train_cfg, "test_cfg": test_cfg})


build_model = build_segmentor
