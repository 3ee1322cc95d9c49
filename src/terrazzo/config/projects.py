"""The modules of a user's project and the classes that each registers, found by their text beside a config."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from terrazzo.plugins import TOOLBOXES

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
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


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
