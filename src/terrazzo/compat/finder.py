"""The import finder that answers MMSegmentation's packages with modules made of terrazzo's parts."""

from __future__ import annotations

import collections.abc
import importlib
import importlib.util
import inspect
import logging
import math
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from terrazzo.errors import nearest

PACKAGES = {
    "mmseg": "1.2.2",
    "mmcv": "2.0.1",
    "mmengine": "0.10.7",
    "mmdet": "3.3.0",
    "mmpretrain": "1.2.0",
    "mmcls": "0.25.0",
}
# the parts whose public names the packages have, the first that has one wins
PARTS = (
    "registry config module weights layers transformer blocks inner ops structures losses faces segmentors processes "
    "files tools image transforms formatting datasets loaders metrics engine optim apis"
)
# modules that are imported from their parent; any other one is imported by its whole name
FOLDERS = (
    "analysis apis arraymisc assigners backbones bbox bricks builder cnn config core data_preprocessor dataset "
    "datasets decode_heads dense_heads device dist dl_utils engine evaluation evaluator fileio hook hooks hub image "
    "infer layers logging losses metrics model models necks onnx ops optim optimizer optimizers parallel pipelines "
    "registry runner samplers schedulers seg segmentors structures testing text_encoder transforms util_mixins utils "
    "video visualization weight_init"
)


class Answer(ModuleType):
    """A module of one of the packages: each of its names is looked up where it is used."""

    def __getattr__(self, name: str) -> Any:
        package, _, path = self.__name__.partition(".")
        if name == "__all__":
            return public_names()
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        if name in ("__version__", "mmcv_version", "mmengine_version") or (name == "version_info" and not path):
            return version(package, name)
        if name in FOLDERS.split():
            return importlib.import_module(f"{self.__name__}.{name}")
        found = look_up(name, self.__name__)
        if found is None:
            found = from_fork(self.__name__, name)
        if found is None:
            ASKED.add(f"{self.__name__}.{name}")
            raise AttributeError(missing(self.__name__, name))
        return found

    def __dir__(self) -> list[str]:
        return public_names()


ASKED: set[str] = set()  # names that a module was asked for in vain: no submodules


def version(package: str, name: str) -> Any:
    """The version that a package claims to have."""
    own = PACKAGES[name.partition("_")[0] if name.endswith("_version") and name != "__version__" else package]
    if name in ("version_info", "mmcv_version", "mmengine_version"):
        from terrazzo.compat.tools import digit_version

        return digit_version(own)
    return own


def parts() -> list[ModuleType]:
    return [importlib.import_module(f"terrazzo.compat.{name}") for name in PARTS.split()]


def look_up(name: str, module: str = "") -> Any:
    """Look a name of a module up: a part's own, else an official model, data set or transform; or None."""
    for part in parts():
        overrides = getattr(part, "ELSEWHERE", {})
        own = next((item for start, item in overrides.get(name, {}).items() if module.startswith(start)), None)
        if own is not None:
            return own
    for part in parts():
        found = vars(part).get(name)
        if found is not None and not isinstance(found, ModuleType) and is_public(part, found, name):
            return found
    from terrazzo.compat.registry import ORIGINALS

    for find in ORIGINALS.values():
        if (found := find(name)) is not None:
            return found
    return None


def is_public(part: ModuleType, item: Any, name: str) -> bool:
    """Report whether a part's name is one of the packages' rather than one of its helpers, or imported for itself."""
    from terrazzo.compat.official import HELPERS

    origin = str(getattr(item, "__module__", ""))
    if name in HELPERS or name in ("annotations", "ours", "TYPE_CHECKING"):
        return False
    if origin.startswith("terrazzo.") and not origin.startswith("terrazzo.compat"):
        return part.__name__.endswith((".layers", ".ops"))
    return not origin.startswith(("typing", "collections", "pathlib", "importlib"))


def is_name(part: ModuleType, item: Any, name: str) -> bool:
    """Report whether a name of a part is answered: one of ours, or a class of torch under its name there."""
    origin = str(getattr(item, "__module__", ""))
    return (
        not isinstance(item, ModuleType) and is_public(part, item, name) and origin in (part.__name__, "", "functools")
    )


def public_names() -> list[str]:
    """The names that the parts answer."""
    return sorted(
        name
        for name, item in {name: (part, item) for part in parts() for name, item in vars(part).items()}.items()
        if not name.startswith("_") and not isinstance(item[1], ModuleType) and is_public(*item, name)
    )


def missing(module: str, name: str) -> str:
    """The message about a name that the layer does not have: where it is used, the nearest, and what to do."""
    frame = inspect.currentframe()
    while frame is not None and ("importlib" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}: " if frame is not None else ""
    return (
        f"{place}terrazzo's answer to {module} has no '{name}'{nearest(name, public_names())}; copy its definition "
        f"beside your module and import it from there, or install {module.partition('.')[0]}"
    )


# Forks: files of a project's own copy of a package

FORKS: list[Path] = []  # folders that hold a package with files of a user's


def fork_file(module: str) -> Path | None:
    """The file of a module in a fork, or None."""
    for root in FORKS:
        base = root.joinpath(*module.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def is_official(module: str) -> bool:
    """Report whether a module is one of the packages' own rather than a fork's."""
    from terrazzo.compat.official import MODULES

    return module in MODULES


def from_fork(module: str, name: str) -> Any:
    """The definition of a name that the layer lacks in a fork's own version of an official module, or None."""
    file = fork_file(module)
    if file is None:
        return None
    if file.name == "__init__.py":
        return defined_below(file.parent, module, name)
    if not re.search(rf"\b{name}\b", file.read_text(encoding="utf-8", errors="replace")):
        return None
    own = f"{module}__own"
    if own in sys.modules:
        return vars(sys.modules[own]).get(name)
    spec = importlib.util.spec_from_file_location(own, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    made.__package__ = module.rpartition(".")[0]
    sys.modules[own] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[own]
        raise
    return vars(made).get(name)


def defined_below(folder: Path, package: str, name: str) -> Any:
    """The definition of a name in a fork's files below a package's folder, an author's own file first; or None."""
    defines = re.compile(rf"^(?:class|def) {name}\b|^{name}\s*=", re.MULTILINE)
    files = [file for file in sorted(folder.rglob("*.py")) if defines.search(file.read_text("utf-8", errors="replace"))]
    modules = [".".join([package, *file.relative_to(folder).with_suffix("").parts]) for file in files]
    for module in sorted(modules, key=is_official):
        found = from_fork(module, name) if is_official(module) else vars(importlib.import_module(module)).get(name)
        if found is not None:
            return found
    return None


class Finder:
    """Answers imports of the packages that are not installed, and of a fork's own files inside them."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        if package not in ANSWERED:
            return None
        file = fork_file(fullname)
        if file is not None and inner and not is_official(fullname):
            folder = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=folder)
        if fullname in ASKED:
            raise ImportError(missing(*fullname.rpartition(".")[::2]))
        if inner and not is_official(fullname) and inner.split(".")[0] not in FOLDERS.split():
            return None
        return ModuleSpec(fullname, Finder(), is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Answer(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        from terrazzo.compat.bridge import connect

        connect()


ANSWERED: list[str] = []


def install() -> list[str]:
    """Answer the packages that are not installed from now on; returns their names. Said once in the log."""
    if Finder in sys.meta_path:
        return ANSWERED
    found = [name for name in PACKAGES if not is_installed(name)]
    ANSWERED[:] = found
    if "torch._six" not in sys.modules:  # of earlier releases of torch, which such modules name
        sys.modules["torch._six"] = earlier = ModuleType("torch._six")
        types = {"container_abcs": collections.abc, "string_classes": (str, bytes), "int_classes": int, "inf": math.inf}
        vars(earlier).update(types)
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]  # before a fork's own copy in the current folder
    if found:
        logging.getLogger("terrazzo").info("modules that import %s get terrazzo's own parts", ", ".join(found))
    return ANSWERED


def uninstall() -> None:
    """Answer nothing any more, and forget the modules that were answered and the forks."""
    sys.meta_path[:] = [item for item in sys.meta_path if item is not Finder]
    for name, module in [*sys.modules.items()]:
        if isinstance(module, Answer):
            del sys.modules[name]
    ANSWERED.clear()
    FORKS.clear()


def is_installed(package: str) -> bool:
    """Report whether a package is imported already or lies where packages are installed; a fork's folder does not."""
    if package in sys.modules:
        return True
    spec = importlib.util.find_spec(package)
    return spec is not None and {"site-packages", "dist-packages"} & set(Path(spec.origin or "").parts) != set()


def add_fork(folder: Path) -> None:
    """Look for modules of the packages in a project's own copy too."""
    if folder not in FORKS:
        FORKS.append(folder)
