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
from terrazzo.config.projects import KEY, file_of, note, noted_folders, root_of
from terrazzo.errors import UserError, nearest, some
from terrazzo.plugins import TOOLBOXES, import_user_module, official_modules
from terrazzo.registry import DATASETS, METRICS, MODELS, TRANSFORMS, model_type


def import_custom(config: Config) -> None:
    """Import the modules that a trusted config names: beside and above it, in the current folder, or from sys.path.

    The project and its modules are noted in the config, by which a checkpoint finds them again. Raises UserError for a
    module that is missing, fails, or was loaded from elsewhere.
    """
    compat = importlib.import_module("terrazzo.compat")  # by name: nothing imports the layer unless it is asked for
    answered = compat.install()
    names, may_fail = custom_modules(config)
    folders, root, section = beside(config), root_of(config) or Path.cwd(), config.get(KEY) or {}
    noted = [str(folder) for folder in (*noted_folders(root, section), root)] if "project" in section else []
    places = list(dict.fromkeys([*folders, str(Path.cwd()), *above(config, names, root), *noted]))
    if names or noted:
        sys.path[:0] = [folder for folder in places if folder not in sys.path]  # before an installed package
    if any((root / package).is_dir() for package in answered):
        compat.add_fork(root)
    for registry in (MODELS, TRANSFORMS, DATASETS, METRICS):
        registry.load()  # first, so that a clash of names is blamed on the user's module
    for name in names:
        where = f"{config.path or 'the config'}: {KEY} names '{name}'"
        try:
            if name.partition(".")[0] in answered:
                compat.add_fork(fork_of(name, where, [str(root), *places]))
            module = import_user_module(name, where, model_type)
        except UserError as problem:
            if not may_fail:
                raise
            warnings.warn(str(problem))
            continue
        check_location(name, module, folders)
    of_project = compat.import_project(config)
    in_use = folders_in_use()
    used = [folder for folder in places if folder in in_use]
    listed = [name for name in names if any(file_of(name, Path(folder)) for folder in (*used, str(root)))]
    if listed or of_project:
        note(config, root, [*dict.fromkeys((*listed, *of_project))], used)


def fork_of(name: str, where: str, folders: list[str]) -> Path:
    """The folder with a user's own version of a package that has this module, which no release has.

    Raises UserError where none of the `folders`, nor PYTHONPATH, has it.
    """
    found = next((Path(folder) for folder in (*folders, *sys.path) if file_of(name, Path(folder))), None)
    if found is None:
        raise UserError(
            f"{where}, which no release of {name.partition('.')[0]} has, nor is it a file below "
            f"{some(dict.fromkeys(folders))} or on PYTHONPATH{nearest(name, official_modules())}"
        )
    return found


def folders_in_use() -> set[str]:
    """The folders from which modules and packages were imported."""
    specs = [getattr(module, "__spec__", None) for name, module in list(sys.modules.items()) if "." not in name]
    places = [[*(spec.submodule_search_locations or ()), spec.has_location and spec.origin] for spec in specs if spec]
    return {os.path.realpath(Path(first).parent) for first, *_ in places if first}


def check_custom(config: Mapping[str, Any]) -> None:
    """Raise UserError, with the way to allow it, if a config needs modules that are not imported yet."""
    names, may_fail = custom_modules(config)
    section = config.get(KEY) or {}
    wanted = dict.fromkeys((*names, *section.get("modules", ())))
    missing = [name for name in wanted if name not in sys.modules]
    if missing and not may_fail:
        raise UserError(
            f"{getattr(config, 'path', None) or 'the config'}: {KEY} asks for code to be run: {', '.join(missing)}. "
            "If you trust it, pass --trust-config on the command line or trust=True in Python, or import it beforehand"
        )


def custom_modules(config: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The modules that a config names, without those of OpenMMLab's releases, and a flag: may they be missing?"""
    section = config.get(KEY) or {}
    imports = section.get("imports") or [] if isinstance(section, Mapping) else None
    imports = [imports] if isinstance(imports, str) else imports
    if not isinstance(imports, (list, tuple)) or not all(isinstance(name, str) and name for name in imports):
        raise UserError(f'{KEY} must be dict(imports=["my_head"]), the names of modules, not {section!r}')
    names = [name for name in imports if name.partition(".")[0] not in TOOLBOXES or name not in official_modules()]
    return names, bool(section.get("allow_failed_imports"))


def beside(config: Config) -> list[str]:
    """The folders of the config and of the base file that names the modules."""
    origin = config.origin(f"{KEY}.imports")
    files = [config.path, Path(origin.rpartition(":")[0]) if origin else None]
    return list(dict.fromkeys(os.path.realpath(file.parent) for file in files if file is not None))


def above(config: Config, names: list[str], root: Path) -> list[str]:
    """The folders above the config in which the modules lie, up to the project's `root`; a package's, up to any."""
    parents = config.path.resolve().parents if config.path is not None else ()
    packages = {name.partition(".")[0] for name in names if "." in name}
    alone = [name for name in names if "." not in name]
    return [
        str(folder)
        for folder in parents
        if any((folder / package).is_dir() for package in packages)
        or (folder.is_relative_to(root) and any(file_of(name, folder) for name in alone))
    ]


def check_location(name: str, module: Any, folders: list[str]) -> None:
    """Raise UserError if another module of the same name hides the one beside the config."""
    loaded = getattr(module, "__file__", None)
    stem = name.replace(".", "/")
    for folder in folders:
        for own in (Path(folder, f"{stem}.py"), Path(folder, stem, "__init__.py")):
            if own.is_file() and loaded is not None and not own.samefile(loaded):
                raise UserError(f"{KEY} names '{name}', which is {loaded} here and hides {own}: rename one of them")
