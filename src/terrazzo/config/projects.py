"""The modules of a user's project and the classes that each registers, found by their text beside a config."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from terrazzo.plugins import TOOLBOXES

KEY = "custom_imports"
NEAR = 4  # folders above a config
OF_REPOSITORIES = (".git", "LICENSE", "setup.py", "pyproject.toml", "requirements.txt")
MOST_FILES = 4000  # of a project; a folder with more is no project's
SKIPPED = {"configs", "config", "tests", "docs", "demo", "build", "dist", "node_modules", "site-packages", "work_dirs"}
REGISTERS = re.compile(r"^\s*@?\s*[\w.]*register_module\(", re.MULTILINE)
# classes and functions of a module, and those that it registers inside an `if`
DEFINED = re.compile(r"^(?:class|def) (\w+)|register_module\([^()]*\)\s+(?:@.*\s+)*class (\w+)", re.MULTILINE)
NAMED = re.compile(r"register_module\(([^()]*['\"][^()]*)\)")  # by other names than their own


def project_of(config: Path) -> Path:
    """The folder of a project: that of its `configs` folder, else the current one not far above, else the config's own.

    Modules of a fork's `projects` are imported from the fork, those of a package from the folder that it is in.
    """
    path = config.resolve()
    folders = (parent.parent for parent in path.parents if parent.name in ("configs", "config", "local_configs"))
    root = next(folders, Path.cwd() if Path.cwd() in path.parents[:NEAR] else path.parent)
    if root.parent.name == "projects" and any((root.parents[1] / package).is_dir() for package in TOOLBOXES):
        return root.parents[1]
    while (root / "__init__.py").is_file() and not is_repository(root):
        root = root.parent
    return root


def root_of(config: Any) -> Path | None:
    """The folder of a config's project: what a checkpoint's config notes, else by its path; None without one.

    A noted folder is relative to where the model was trained. Where that has not the noted modules, the current folder
    may, into which the project has moved, or the folder at its whole path.
    """
    section = config.get(KEY) or {}
    if not section.get("project"):
        return None if config.path is None else project_of(config.path)
    noted = Path(section["project"]).resolve()
    places = [noted, Path.cwd(), Path(section.get("root", noted))]
    known = noted if noted.is_dir() else Path.cwd()
    return next((place for place in places if has_modules(place, section)), known)


def has_modules(root: Path, section: Mapping[str, Any]) -> bool:
    """Report whether a folder is the project that a checkpoint's `custom_imports` notes: it has all of its modules."""
    folders = [root, root.parent, *noted_folders(root, section)]
    return all(any(file_of(name, folder) for folder in folders) for name in section.get("modules", ()))


def noted_folders(root: Path, section: Mapping[str, Any]) -> list[Path]:
    """The folders from which a project's modules were imported, where they are now."""
    return [Path(os.path.normpath(root / folder)) for folder in section.get("folders", ())]


def file_of(module: str, folder: Path) -> Path | None:
    """The file of a module below a folder, or the folder of a package without one; None if it is not there."""
    base = folder.joinpath(*module.split("."))
    files = [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return files[0] if files else base if base.is_dir() else None


def note(config: Any, root: Path, modules: list[str], folders: list[str]) -> None:
    """Note a project in its config, by which a checkpoint of it finds the modules again, here or elsewhere."""
    here = Path.cwd()
    places = {
        "project": str(root.relative_to(here) if root.is_relative_to(here) else root),
        "root": str(root),
        "modules": modules,
        "folders": [os.path.relpath(folder, root) for folder in folders],
    }
    config._values[KEY] = {**(config.get(KEY) or {}), **places}


def is_repository(folder: Path) -> bool:
    return any((folder / name).exists() for name in OF_REPOSITORIES)


def python_files(root: Path) -> list[Path]:
    """The Python files of a project, without its configs and tests; none for a folder that is no project's."""
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name not in SKIPPED and name[0] != ".")
        files = [Path(folder, name) for name in sorted(names) if name.endswith(".py") and name[0] != "."]
        found += [file for file in files if not file.is_symlink()]
        if len(found) + len(below) > MOST_FILES:
            return []
    return found


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def registering(root: Path, official: Collection[str] = ()) -> dict[str, list[str]]:
    """The modules of a project that register each class, by its name.

    Those that their package imports come first, and of these an author's own files rather than `official` ones.
    """
    found: dict[str, list[str]] = {}
    for file in python_files(root):
        text = file.read_text(encoding="utf-8", errors="replace")
        name = module_name(file, root)
        if not REGISTERS.search(text) or not all(part.isidentifier() for part in name.split(".")):
            continue
        named = [key for given in NAMED.findall(text) for key in re.findall(r"['\"]([^'\"]+)['\"]", given)]
        for cls in [*map("".join, DEFINED.findall(text)), *named]:
            found.setdefault(cls, []).append(name)
    for names in [names for names in found.values() if len(names) > 1]:
        names.sort(key=lambda name: (not is_in_use(name, root), name in official))
    return found


def is_in_use(module: str, root: Path) -> bool:
    """Report whether a module's package imports it."""
    *folders, name = module.split(".")
    file = root.joinpath(*folders, "__init__.py")
    return file.is_file() and re.search(rf"\b{name}\b", file.read_text("utf-8", errors="replace")) is not None


def values_in(value: Any) -> Iterator[Any]:
    """A value of a config and all those inside it."""
    yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from values_in(item)


def texts_in(value: Any) -> Iterator[str]:
    """The texts in a config, any of which may name a type, as `head="MyHead"` does."""
    return (item for item in values_in(value) if isinstance(item, str))


def types_in(value: Any) -> Iterator[str]:
    """The types in a config, without their scopes."""
    kinds = (item.get("type") for item in values_in(value) if isinstance(item, Mapping))
    return (kind.rpartition(".")[2] for kind in kinds if isinstance(kind, str))
