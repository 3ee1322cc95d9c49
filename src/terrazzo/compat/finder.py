"""The import finder that answers MMSegmentation's packages with modules made of terrazzo's parts."""

import collections.abc
import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from terrazzo import registry as ours
from terrazzo.errors import nearest
from terrazzo.plugins import imports_others, official_modules
from terrazzo.system.messages import say_once, show_messages

PACKAGES = {"mmseg": "1.2.2", "mmcv": "2.0.1", "mmengine": "0.10.7", "mmdet": "3.3.0", "mmpretrain": "1.2.0",
            "mmcls": "0.25.0", "MultiScaleDeformableAttention": "1.0", "DCNv3": "1.1"}  # fmt: skip
# the modules whose names the packages have, the first that has one wins
PARTS = (
    "registry files.config files.files files.image models.module models.layers models.operators models.transformer "
    "models.blocks models.losses data.structures data.transforms data.datasets data.metrics engine.tools engine.hooks "
    "engine.optim engine.runner engine.apis"
)
# the modules of MMSegmentation's releases: any other file in a fork is its author's
MODULES = frozenset(name for name in official_modules() if name.partition(".")[0] == "mmseg")
# modules that are imported from their parent; any other one is imported by its whole name
FOLDERS = (
    "analysis apis arraymisc assigners backbones bbox bricks builder cnn config core data_preprocessor dataset "
    "datasets decode_heads dense_heads device dist dl_utils engine evaluation evaluator fileio hook hooks hub "
    "image infer layers logging losses metrics model models necks onnx ops optim optimizer optimizers parallel "
    "pipelines registry runner samplers schedulers seg segmentors structures testing text_encoder transforms "
    "util_mixins utils video visualization weight_init"
)
# the official types that a star brings from modules of data
STARS = {
    "datasets": ("DATASETS", "TRANSFORMS"),
    **dict.fromkeys(("transforms", "pipelines", "mmcv"), ("TRANSFORMS",)),
}
# classes and functions that share their name with one that is answered, and are others
OTHERS = {
    "mmseg.models.backbones.mit.TransformerEncoderLayer",
    "mmseg.models.decode_heads.ann_head.SelfAttentionBlock",
    "mmseg.models.decode_heads.isa_head.SelfAttentionBlock",
    "mmseg.models.losses.focal_loss.sigmoid_focal_loss",
}


class Answer(ModuleType):
    """A module of one of the packages: each of its names is looked up where it is used."""

    def __getattr__(self, name: str) -> Any:
        package, _, path = self.__name__.partition(".")
        if name == "__all__":
            return star_names(self.__name__)
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        if name in ("__version__", "mmcv_version", "mmengine_version") or (name == "version_info" and not path):
            from terrazzo.compat.engine.tools import digit_version

            own = PACKAGES[name.removesuffix("_version") if name[0] == "m" else package]
            return own if name == "__version__" else digit_version(own)
        whole, names = f"{self.__name__}.{name}", own_names()
        if name in FOLDERS.split() and is_module(whole):
            return importlib.import_module(f"{self.__name__}.{name}")
        found = None if whole in OTHERS else names.get(whole) or names.get(f"{package}.{name}") or look_up(name, whole)
        found = from_fork(self.__name__, name) if found is None else found
        if found is None and whole in official_modules():
            return importlib.import_module(whole)
        if found is None:
            ASKED.add(whole)
            raise AttributeError(missing(self.__name__, name))
        return found

    def __dir__(self) -> list[str]:
        return public_names()


ASKED: set[str] = set()  # names that a module was asked for in vain: no submodules


@cache
def own_names(names: str = PARTS) -> dict[str, Any]:
    """The names that parts answer: what each defines itself and its table; the first part that has one wins."""
    parts = [vars(importlib.import_module(f"terrazzo.compat.{name}")) for name in names.split()]
    own = [
        {name: item for name, item in part.items() if is_answer(name, item)} | part.get("TABLE", {}) for part in parts
    ]
    return {name: item for items in reversed(own) for name, item in items.items()}


def is_answer(name: str, item: Any) -> bool:
    """Report whether a part's name is one of the packages' rather than a table or imported for the part itself."""
    table = name.isupper() and not hasattr(item, "register_module")
    if item is None or isinstance(item, ModuleType) or table or name.startswith("__"):
        return False
    return not re.match(
        r"terrazzo\.(?!compat)|typing|types|functools|collections|pathlib|importlib|torch\.utils",
        str(getattr(item, "__module__", "") if hasattr(item, "__name__") else ""),  # partial functions are the part's
    )


def look_up(name: str, whole: str = "") -> Any:
    """Look a name up: a part's own, else an official model, data set or transform; or None."""
    importlib.import_module("terrazzo.compat.models.segmentors")  # which knows the official models
    from terrazzo.compat.registry import ORIGINALS

    if ".pipelines." in whole and (found := ORIGINALS["transform"](f"0.x {name}")) is not None:
        return found
    if name in own_names():  # which fills the table of the others
        return own_names()[name]
    finds = [find for kind, find in ORIGINALS.items() if not kind.startswith("layer of")]
    return next((found for find in finds if (found := find(name)) is not None), None)


def public_names() -> list[str]:
    """The names that the parts answer."""
    from terrazzo.compat.models.segmentors import OFFICIAL

    return sorted({*OFFICIAL, *(name for name in own_names() if name[0] != "_" and "." not in name)})


def star_names(module: str) -> list[str]:
    """The names that `from module import *` brings: not those of files in mmseg; the official types of its folder."""
    from terrazzo.compat.models.faces import own_types

    package, last = module.partition(".")[0], module.rpartition(".")[2]
    others = own_names("files.config files.files files.image") if package == "mmseg" else ()
    found = {name for name in public_names() if name not in others}
    if last in ("backbones", "necks", "decode_heads", "losses"):
        place = f"terrazzo.models.{last.removeprefix('decode_')}."
        found |= {name for name, item in own_types().items() if str(item.__module__).startswith(place)}
    for table in [getattr(ours, name) for name in STARS.get(last, ())]:
        table.load()
        found |= table.types.keys()
    return sorted(name for name in found if name.isidentifier())


def missing(module: str, name: str, known: Sequence[str] = ()) -> str:
    """The message about a name that the layer does not have: where it is used, the nearest, and what to do."""
    frame = inspect.currentframe()
    while frame is not None and imports_others(frame.f_code.co_filename):
        frame = frame.f_back
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}: " if frame is not None else ""
    near = nearest(name, known or public_names())
    return (
        f"{place}terrazzo's answer to {module} has no '{name}'{near}; copy its definition "
        f"beside your module and import it from there, or install {module.partition('.')[0]}"
    )


# Forks: files of a project's own copy of a package

FORKS: list[Path] = []  # folders that hold a package with files of a user's


def fork_file(module: str) -> Path | None:
    """The file of a module in a fork, or None."""
    bases = [root.joinpath(*module.split(".")) for root in FORKS]
    files = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def is_module(name: str) -> bool:
    """Report whether a package has a module, or a fork a folder, of this name."""
    return name in official_modules() or any(root.joinpath(*name.split(".")).is_dir() for root in FORKS)


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
    if own not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(own, file)
        sys.modules[own] = made = importlib.util.module_from_spec(spec)
        made.__package__ = module.rpartition(".")[0]
        try:
            spec.loader.exec_module(made)
        except BaseException:
            del sys.modules[own]
            raise
    return vars(sys.modules[own]).get(name)


def defined_below(folder: Path, package: str, name: str) -> Any:
    """The definition of a name in a fork's files below a package's folder, an author's own file first; or None."""
    defines = re.compile(rf"^(?:class|def) {name}\b|^{name}\s*=", re.MULTILINE)
    files = [file for file in sorted(folder.rglob("*.py")) if defines.search(file.read_text("utf-8", errors="replace"))]
    modules = [".".join([package, *file.relative_to(folder).with_suffix("").parts]) for file in files]
    for module in sorted(modules, key=MODULES.__contains__):
        official = module in MODULES
        found = from_fork(module, name) if official else vars(importlib.import_module(module)).get(name)
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
        if file is not None and inner and fullname not in MODULES:
            folder = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=folder)
        if fullname in ASKED:
            raise ImportError(missing(*fullname.rpartition(".")[::2]))
        module, _, name = fullname.rpartition(".")
        if inner and not is_module(fullname):
            if name[0] == "_":
                return None  # as `mmcv._ext`, which code looks for before it imports it
            modules = [item.rpartition(".")[2] for item in official_modules() if item.startswith(f"{module}.")]
            raise ModuleNotFoundError(missing(module, name, modules), name=fullname)
        return ModuleSpec(fullname, Finder(), is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Answer(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        from terrazzo.compat.models.bridge import connect

        connect()


ANSWERED: list[str] = []


def install() -> list[str]:
    """Answer the packages that are not installed from now on; returns their names. Said once in the log."""
    if Finder in sys.meta_path:
        return ANSWERED
    ANSWERED[:] = [name for name in PACKAGES if not is_installed(name)]
    if "torch._six" not in sys.modules:  # of earlier releases of torch, which such modules name
        sys.modules["torch._six"] = earlier = ModuleType("torch._six")
        types = {"container_abcs": collections.abc, "string_classes": (str, bytes), "int_classes": int, "inf": math.inf}
        vars(earlier).update(types)
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]  # before a fork's own copy in the current folder
    show_messages()
    if ANSWERED:
        say_once(f"modules that import {', '.join(ANSWERED)} get terrazzo's own parts")
    return ANSWERED


def is_installed(package: str) -> bool:
    if package in sys.modules:
        return True
    spec = importlib.util.find_spec(package)
    place = Path((spec and spec.origin) or "")
    return place.suffix == ".so" or not {"site-packages", "dist-packages"}.isdisjoint(place.parts)


def add_fork(folder: Path) -> None:
    """Look for modules of the packages in a project's own copy too."""
    if folder not in FORKS:
        FORKS.append(folder)
