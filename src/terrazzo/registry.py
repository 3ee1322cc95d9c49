"""Tables from names in configs to classes, one for each category."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from terrazzo.arguments import construct, located, shown
from terrazzo.errors import UserError, nearest
from terrazzo.plugins import import_user_module, named_class

T = TypeVar("T")
RawBuild = Callable[..., Any]

# Type names of other packages appear in configs with these prefixes. A class of ours that differs by scope registers
# under the scoped name (`mmdet.DiceLoss`); every other scope is ignored.
SCOPES = ("mmseg", "mmdet", "mmpretrain", "mmcls", "mmcv", "mmengine", "terrazzo")
SCOPE_KEY = "_scope_"
IGNORED_KEYS = ("init_cfg", "pretrained", SCOPE_KEY)  # weights come from checkpoints, not from a constructor


class Registry:
    """The types of one category, registered by the modules of `packages` and of the entry point group `group`.

    A look-up imports the modules of entry points, and of the packages only those whose text names the type; all of them
    where none does. `hint` ends the message about an unknown name.
    """

    def __init__(self, kind: str, *packages: str, group: str | None = None, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self.group = group
        self.packages = packages
        self.types: dict[str, Any] = {}
        self.raw: dict[str, RawBuild] = {}  # by name: what builds a type from its section as written
        self.hidden: dict[str, Any] = {}  # types of ours in place of which others are registered
        self._loaded = self._plugins_loaded = False

    def register(self, item: T | None = None, *, name: str | None = None, aliases: tuple[str, ...] = ()) -> Any:
        """Put a class, or an object with a `name`, into the table; also a decorator. A taken name is a ValueError."""

        def add(item: T) -> T:
            for key in (name or getattr(item, "__name__", None) or item.name, *aliases):  # type: ignore[attr-defined]
                if not getattr(item, "__module__", "").startswith("terrazzo."):
                    self._import_definition(key)  # registers our type of that name, if there is one
                taken = self.types.get(key, item)
                if taken != item and not same_definition(taken, item):
                    raise ValueError(f"{self.kind} '{key}' is registered twice: {taken} and {item}")
                self.types[key] = item
            return item

        return add if item is None else add(item)

    def register_raw(self, item: Any, name: str, build: RawBuild) -> None:
        """Put a type into the table, in place of ours of that name; `build(item, section, where)` makes one."""
        self._import_definition(name)
        if name in self.types and name not in self.raw:
            self.hidden[name] = self.types[name]
        self.types[name] = item
        self.raw[name] = build

    def load(self) -> None:
        """Import every module of the category's packages and entry points, once."""
        if self._loaded:
            return
        self._loaded = True
        for package_name in self.packages:
            package = importlib.import_module(package_name)
            for module in pkgutil.walk_packages(package.__path__, package_name + "."):
                importlib.import_module(module.name)
        self._load_plugins()

    def _load_plugins(self) -> None:
        """Import the modules that installed packages name in the group of entry points, once."""
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for entry in importlib.metadata.entry_points(group=self.group) if self.group else ():
            import_user_module(entry.module, f"the entry point '{entry.name}' in the group {self.group}", model_type)

    @cached_property
    def _sources(self) -> dict[str, str]:
        """The text of each module of the packages; reading all of them is much faster than importing them."""
        texts = {}
        for package_name in self.packages:
            for folder in map(Path, importlib.import_module(package_name).__path__):
                for file in sorted(folder.rglob("*.py")):
                    name = ".".join([package_name, *file.relative_to(folder).with_suffix("").parts])
                    texts[name.removesuffix(".__init__")] = file.read_text(encoding="utf-8")
        return texts

    def _import_definition(self, name: str) -> bool:
        """Import the modules of the packages that define or quote `name`, until one registers it; report success."""
        for module, text in self._sources.items() if not self._loaded else ():
            if f"class {name}" in text or f'"{name}"' in text:
                importlib.import_module(module)
                if name in self.types:
                    return True
        return name in self.types

    def _find(self, *names: str) -> Any:
        """The type registered under the first of the names that there is, or None."""
        self._load_plugins()
        for name in names:
            if name in self.types or self._import_definition(name):
                return self.types[name]
        self.load()
        return next((self.types[name] for name in names if name in self.types), None)

    def get(self, name: str, where: str = "") -> Any:
        """The type called `name`, with or without a scope. Raises UserError with the nearest names."""
        scope, _, bare = name.rpartition(".")
        found = self._find(name, bare) if scope in SCOPES else self._find(name)
        if found is not None:
            return found
        location = f" at {where}" if where else ""
        if name.startswith("<"):
            raise UserError(f"{name}{location} is a class of the config's own project: trust it (--trust-config)")
        raise UserError(f"no {self.kind} is called '{name}'{location}{nearest(bare, self.types)}{self.hint}")

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(sorted(self.types))

    def build(self, spec: Any, where: str = "", **extra: Any) -> Any:
        """Build a spec leaves first: nested dicts with a `type` become objects, `*_cfg` values stay for their owner.

        Raises UserError for an unknown type or argument and for values that it cannot be built with, with the path in
        the config, and the file and line if the spec knows them.
        """
        if isinstance(spec, (list, tuple)):
            return type(spec)(self.build(item, f"{where}.{index}") for index, item in enumerate(spec))
        if not isinstance(spec, dict):
            return spec if (named := named_class(spec)) is None else named
        kind = spec.get("type")
        if (named := named_class(kind)) is not None and kind not in self.types:
            kind = named
        if SCOPE_KEY in spec and isinstance(kind, str) and "." not in kind:
            kind = f"{spec[SCOPE_KEY]}.{kind}"
        if kind is not None and not isinstance(kind, str) and not callable(kind):
            raise UserError(located(spec, "type", f"{where}.type must be a name, not {shown(kind)}".lstrip(".")))
        factory = self.get(kind, where) if isinstance(kind, str) else kind
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
        name = name if name in self.raw else name.rpartition(".")[2]
        users = isinstance(kind, type) and not kind.__module__.startswith("terrazzo.")  # a class of theirs, itself
        if (raw := self.raw.get(name)) is not None and (isinstance(kind, str) or (users and self.types[name] is kind)):
            return raw(factory, spec, where, **extra)
        kept = getattr(factory, "keeps_specs", ())  # arguments that the class builds itself, later or repeatedly
        arguments = {}
        for key, value in spec.items():
            if key in IGNORED_KEYS or key == "type":
                continue
            as_spec = str(key).endswith("_cfg") or key in kept
            arguments[key] = value if as_spec else self.build(value, f"{where}.{key}".lstrip("."))
        if factory is None:
            return arguments
        return construct(factory, arguments | extra, kind, where, spec)


def same_definition(one: Any, other: Any) -> bool:
    """Report whether two classes are one whose definition was run twice, as in a notebook."""
    return all(isinstance(item, type) for item in (one, other)) and (one.__module__, one.__qualname__) == (
        other.__module__,
        other.__qualname__,
    )


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
    hint=" (a data set of your own needs no class: type='BaseSegDataset' with metainfo=dict(classes=..., palette=...); "
    "or `terrazzo.data.spec.declare` it in a module that custom_imports names)",
)
METRICS = Registry("metric", "terrazzo.metrics", group="terrazzo.metrics")
HOOKS = Registry("hook", group="terrazzo.hooks")  # observers of the training loop; there are none of ours


def model_type(name: str) -> Any:
    """The model type called `name`, or None."""
    return MODELS.get(name) if name in MODELS else None


def declared_dataset(name: str) -> Any:
    """The declared data set of a type name or a short name (`cityscapes`, `ade`). Raises UserError with the nearest."""

    def short(name: str) -> str:
        return name.replace("Dataset", "").replace("_", "").replace("-", "").lower()

    specs = [DATASETS.get(kind) for kind in DATASETS]
    found = {short(known): spec for spec in specs for known in (spec.name, *spec.aliases)}
    if short(name) not in found:
        raise UserError(f"no data set is called '{name}'{nearest(name, [*found, *DATASETS])}")
    return found[short(name)]
