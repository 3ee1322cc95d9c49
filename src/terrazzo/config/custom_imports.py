"""`custom_imports`: a user's own modules, which register heads, backbones and the rest from a config."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.config import Config
from terrazzo.errors import UserError
from terrazzo.plugins import TOOLBOXES, import_user_module
from terrazzo.registry import DATASETS, METRICS, MODELS, TRANSFORMS, model_type

KEY = "custom_imports"


def import_custom(config: Config) -> None:
    """Import the modules that a trusted config names: beside the config, in the current folder, or from sys.path.

    Raises UserError for a module that is missing, fails, or was loaded from elsewhere.
    """
    compat = importlib.import_module("terrazzo.compat")  # by name: nothing imports the layer unless it is asked for
    compat.install()
    names, may_fail = custom_modules(config)
    if not names:
        compat.import_project(config)
        return
    folders = beside(config)
    own = [folder for folder in (*folders, str(Path.cwd()), *above(config, names)) if folder not in sys.path]
    sys.path[:0] = own  # before a package of that name that is installed
    for registry in (MODELS, TRANSFORMS, DATASETS, METRICS):
        registry.load()  # first, so that a clash of names is blamed on the user's module
    for name in names:
        where = f"{config.path or 'the config'}: {KEY} names '{name}'"
        try:
            module = import_user_module(name, where, model_type)
        except UserError as problem:
            if not may_fail:
                raise
            warnings.warn(str(problem))
            continue
        check_location(name, module, folders)
    compat.import_project(config)


def check_custom(config: Mapping[str, Any]) -> None:
    """Raise UserError, with the way to allow it, if a config needs modules that are not imported yet."""
    names, may_fail = custom_modules(config)
    section = config.get(KEY) or {}
    missing = [name for name in (*names, *section.get("modules", ())) if name not in sys.modules]
    if missing and not may_fail:
        raise UserError(
            f"{getattr(config, 'path', None) or 'the config'}: {KEY} asks for code to be run: {', '.join(missing)}. "
            "If you trust it, pass --trust-config on the command line or trust=True in Python, or import it beforehand"
        )


def custom_modules(config: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The modules that a config names, without those of OpenMMLab's toolboxes, and a flag: may they be missing?"""
    section = config.get(KEY) or {}
    imports = section.get("imports") or [] if isinstance(section, Mapping) else None
    imports = [imports] if isinstance(imports, str) else imports
    if not isinstance(imports, (list, tuple)) or not all(isinstance(name, str) and name for name in imports):
        raise UserError(f'{KEY} must be dict(imports=["my_head"]), the names of modules, not {section!r}')
    names = [name for name in imports if name.partition(".")[0] not in TOOLBOXES]
    return names, bool(section.get("allow_failed_imports"))


def beside(config: Config) -> list[str]:
    """The folders of the config and of the base file that names the modules."""
    origin = config.origin(f"{KEY}.imports")
    files = [config.path, Path(origin.rpartition(":")[0]) if origin else None]
    return list(dict.fromkeys(os.path.realpath(file.parent) for file in files if file is not None))


def above(config: Config, names: list[str]) -> list[str]:
    """The folders above the config in which a package lies that `names` begin with, as in a repository of projects."""
    first = {name.partition(".")[0] for name in names if "." in name}
    parents = config.path.resolve().parents if config.path is not None else ()
    return [str(folder) for folder in parents if any((folder / package).is_dir() for package in first)]


def check_location(name: str, module: Any, folders: list[str]) -> None:
    """Raise UserError if another module of the same name hides the one beside the config."""
    loaded = getattr(module, "__file__", None)
    stem = name.replace(".", "/")
    for folder in folders:
        for own in (Path(folder, f"{stem}.py"), Path(folder, stem, "__init__.py")):
            if own.is_file() and loaded is not None and not own.samefile(loaded):
                raise UserError(f"{KEY} names '{name}', which is {loaded} here and hides {own}: rename one of them")
