"""Names in configs to classes: one small table for each category."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from terrazzo.errors import UserError, nearest
from terrazzo.plugins import import_user_module

T = TypeVar("T")

# Type names of other packages appear in configs with these prefixes. A class of ours that differs by scope registers
# under the scoped name (`mmdet.DiceLoss`); every other scope falls away.
SCOPES = ("mmseg", "mmdet", "mmpretrain", "mmcls", "mmcv", "mmengine", "terrazzo")
SCOPE_KEY = "_scope_"
IGNORED_KEYS = ("init_cfg", "pretrained", SCOPE_KEY)  # weights come from checkpoints, never from a constructor


class Registry:
    """The types of one category; the modules of `packages` register themselves at the first look-up.

    So do installed modules of the entry point group `group`. `hint` ends the message about an unknown name.
    """

    def __init__(self, kind: str, *packages: str, group: str | None = None, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self.group = group
        self.packages = packages
        self.types: dict[str, Any] = {}
        self._loaded = False

    def register(self, item: T | None = None, *, name: str | None = None, aliases: tuple[str, ...] = ()) -> Any:
        """Put a class, or an object with a `name`, into the table; also a decorator. A taken name is a ValueError."""

        def add(item: T) -> T:
            for key in (name or getattr(item, "__name__", None) or item.name, *aliases):  # type: ignore[attr-defined]
                taken = self.types.get(key, item)
                if taken != item and not same_definition(taken, item):
                    raise ValueError(f"{self.kind} '{key}' is registered twice: {taken} and {item}")
                self.types[key] = item
            return item

        return add if item is None else add(item)

    def load(self) -> None:
        """Import every module of the category's packages and entry points, once."""
        if self._loaded:
            return
        self._loaded = True
        for package_name in self.packages:
            package = importlib.import_module(package_name)
            for module in pkgutil.walk_packages(package.__path__, package_name + "."):
                importlib.import_module(module.name)
        for entry in importlib.metadata.entry_points(group=self.group) if self.group else ():
            import_user_module(entry.module, f"the entry point '{entry.name}' in the group {self.group}")

    def get(self, name: str, where: str = "") -> Any:
        """The type called `name`, with or without a scope. Raises UserError with the nearest names."""
        self.load()
        if name in self.types:
            return self.types[name]
        scope, _, bare = name.rpartition(".")
        if scope in SCOPES and bare in self.types:
            return self.types[bare]
        place = f" at {where}" if where else ""
        raise UserError(f"no {self.kind} is called '{name}'{place}{nearest(bare, self.types)}{self.hint}")

    def __contains__(self, name: str) -> bool:
        self.load()
        return name in self.types

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(sorted(self.types))

    def build(self, spec: Any, where: str = "", **extra: Any) -> Any:
        """Build a spec leaves first: nested dicts with a `type` become objects, `*_cfg` values stay for their owner.

        Raises UserError for an unknown type or argument, with its place in the config.
        """
        if isinstance(spec, (list, tuple)):
            return type(spec)(self.build(item, f"{where}.{index}") for index, item in enumerate(spec))
        if not isinstance(spec, dict):
            return spec
        kind = spec.get("type")
        if SCOPE_KEY in spec and isinstance(kind, str) and "." not in kind:
            kind = f"{spec[SCOPE_KEY]}.{kind}"
        factory = self.get(kind, where) if isinstance(kind, str) else kind
        kept = getattr(factory, "keeps_specs", ())  # arguments that the class builds itself, later or several times
        arguments = {}
        for key, value in spec.items():
            if key in IGNORED_KEYS or key == "type":
                continue
            as_spec = str(key).endswith("_cfg") or key in kept
            arguments[key] = value if as_spec else self.build(value, f"{where}.{key}".lstrip("."))
        if factory is None:
            return arguments
        check_arguments(factory, arguments | extra, kind, where)
        return factory(**arguments, **extra)


def same_definition(one: Any, other: Any) -> bool:
    """Whether two classes are one that was run twice, as in a notebook."""
    return all(isinstance(item, type) for item in (one, other)) and (one.__module__, one.__qualname__) == (
        other.__module__,
        other.__qualname__,
    )


def accepted_arguments(factory: Callable[..., Any]) -> set[str] | None:
    """Names of the keywords that a class takes, its parents' included where it passes them on; None if it takes any."""
    names: set[str] = set()
    owners = (
        [vars(owner)["__init__"] for owner in factory.__mro__ if "__init__" in vars(owner)]
        if inspect.isclass(factory)
        else [factory]
    )
    for function in owners:
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}
    return None


def check_arguments(factory: Callable[..., Any], arguments: dict[str, Any], name: Any, where: str) -> None:
    """Raise UserError for a keyword that `factory` does not take and for a required one that is missing."""
    accepted = accepted_arguments(factory)
    place = f" at {where}" if where else ""
    for key in arguments:
        if accepted is not None and key not in accepted:
            raise UserError(f"{name}{place} has no argument '{key}'{nearest(key, accepted)}")
    missing = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in arguments
    ]
    if missing:
        raise UserError(f"{name}{place} needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}")


MODELS = Registry(
    "model type",
    "terrazzo.models.segmentors",
    "terrazzo.models.backbones",
    "terrazzo.models.necks",
    "terrazzo.models.heads",
    "terrazzo.models.losses",
    group="terrazzo.models",
)
TRANSFORMS = Registry("transform", "terrazzo.transforms", group="terrazzo.transforms")
DATASETS = Registry(
    "dataset type",
    "terrazzo.data.declarations",
    group="terrazzo.datasets",
    hint=" (a data set of your own is registered by `terrazzo.data.spec.declare`)",
)
METRICS = Registry("metric", "terrazzo.metrics", group="terrazzo.metrics")
