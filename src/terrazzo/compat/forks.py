"""Imports of the modules of a project that define a config's types, among them its own versions of official ones."""

import importlib
import importlib.util
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from terrazzo import registry as ours
from terrazzo.compat.finder import ANSWERED, MODULES, from_fork, look_up
from terrazzo.config import projects
from terrazzo.config.config import Config
from terrazzo.errors import UserError
from terrazzo.plugins import CLASSES, explained_import, import_user_module
from terrazzo.system.messages import LOGGER

REGISTRIES = (ours.MODELS, ours.TRANSFORMS, ours.DATASETS, ours.METRICS)
CLASS_TEXT = re.compile(r"<[\w.]+>")


def import_project(config: Config) -> list[str]:
    """Import the modules of a trusted config's project that define its types; returns their names."""
    root = projects.root_of(config)
    if root is None:
        return []
    own, values = projects.registering(root, MODULES), config.to_dict()
    texts, chosen = [*dict.fromkeys(projects.texts_in(values))], list[tuple[str, str, Path]]()
    unknown = [name for name in projects.types_in(values.get("model")) if name not in own and name not in ours.MODELS]
    if unknown and projects.is_repository(root.parent):  # of which the project is a part
        above = projects.registering(root.parent, MODULES)
        chosen += [(name, above[name][0], root.parent) for name in unknown if name in above]
    for name in [name for text in texts if (name := text.rpartition(".")[2]) in own]:
        module = own[name][0]
        known = any(name in registry for registry in REGISTRIES) or (module in MODULES and look_up(name) is not None)
        if not (known and module in MODULES) and not is_registered(name, root):
            chosen.append((name, module, root))
    split = {text: text[1:-1].rpartition(".")[::2] for text in texts if CLASS_TEXT.fullmatch(text)}
    files = {projects.module_name(file, root) for file in projects.python_files(root)} if split else ()
    named = {text: (name, module) for text, (module, name) in split.items() if module in files}  # classes themselves
    chosen += [(name, module, root) for name, module in named.values()]
    names: list[str] = []
    for name, module, place in chosen:
        if str(place) not in sys.path:
            sys.path.insert(0 if place == root else len(sys.path), str(place))
        try:
            import_file(module, place, name)
        except UserError as problem:  # of a file that nothing imports, with a copy of an official class
            if look_up(name) is None or projects.is_in_use(module, place):
                raise
            warnings.warn(f"{problem}; nothing imports that file, so {name} is terrazzo's own")
        else:
            names += [module] * (module not in names)
    for text, (name, module) in named.items():
        register_text(text, getattr(sys.modules[module], name))
    if names:
        LOGGER.info("the project's own modules: %s", ", ".join(names))
    return names


def register_text(text: str, cls: Any) -> None:
    """Register a class that a config names itself, by its text, where it is registered or belongs by its base."""
    from terrazzo.compat import registry as theirs

    CLASSES[text] = cls
    bases = {"BaseSegDataset": theirs.DATASETS, "BaseTransform": theirs.TRANSFORMS, "BaseMetric": theirs.METRICS,
             "Hook": theirs.HOOKS, "Module": theirs.MODELS}  # fmt: skip
    found = [table for table in bases.values() if cls in table.module_dict.values()]
    found += [bases[base.__name__] for base in getattr(cls, "__mro__", ()) if base.__name__ in bases]
    if found:
        found[0].register_module(text, module=cls)


def is_registered(name: str, root: Path) -> bool:
    """Report whether a type of this name is registered by a module of the project, under whatever module name."""
    from terrazzo.compat import registry as theirs

    tables = (theirs.MODELS, theirs.TRANSFORMS, theirs.DATASETS, theirs.METRICS, theirs.HOOKS)
    found = [table.module_dict[name] for table in tables if name in table.module_dict]
    files = [getattr(sys.modules.get(item.__module__), "__file__", None) for item in found]
    return any(file is not None and Path(file).is_relative_to(root) for file in files)


class PassedOver(types.ModuleType):
    """A package whose own imports fail: its modules can be imported, its names are asked for with the reason."""

    def __init__(self, name: str, folder: Path, problem: Exception) -> None:
        super().__init__(name)
        self.__path__ = [str(folder)]
        self.problem = problem

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            raise AttributeError(name)
        raise ImportError(f"{self.__name__} has no {name}, as its own imports fail: {self.problem}") from self.problem


def import_file(module: str, root: Path, name: str = "") -> None:
    """Import a module of a project; packages above it whose own imports fail are passed over.

    Of a project's own version of an official module that part is run which defines `name`.
    """
    parents = module.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        package = ".".join(parents[:depth])
        if package in sys.modules or package.partition(".")[0] in ANSWERED:
            continue
        try:
            importlib.import_module(package)
        except Exception as problem:
            sys.modules[package] = PassedOver(package, root.joinpath(*parents[:depth]), problem)
    import_user_module(module, f"the project {root}", ours.model_type)
    if name and module in MODULES:
        with explained_import(module):
            from_fork(module, name)
