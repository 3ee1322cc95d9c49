"""Import of modules written by users."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from terrazzo.errors import UserError
from terrazzo.porting import FindType, check_ported

TOOLBOXES = ("mmseg", "mmengine", "mmcv", "mmdet", "mmpretrain", "mmcls")


@cache
def official_modules() -> frozenset[str]:
    """The modules of the releases of MMSegmentation's packages: `folder: names` a line of the table."""
    lines = Path(__file__).with_name("official.txt").read_text("utf-8").splitlines()
    listed = [line.split(": ") for line in lines]
    return frozenset(f"{folder}.{name}".removeprefix("-.") for folder, names in listed for name in names.split())


# Classes that a trusted config names by themselves, not by the text of their names

CLASSES: dict[str, Any] = {}


def class_text(item: Any) -> str:
    """A class or a function of a config as a text, which a checkpoint can hold."""
    text = f"<{item.__module__}.{item.__qualname__}>"
    CLASSES[text] = item
    return text


def named_class(text: Any) -> Any:
    """The class or function that such a text stands for: one of a trusted config, or a layer of torch.nn; else None."""
    if not isinstance(text, str) or not text.startswith("<"):
        return None
    if text not in CLASSES and text.startswith("<torch.nn."):
        import torch

        found = getattr(torch.nn, text[1:-1].rpartition(".")[2], None)
        return found if isinstance(found, type) and issubclass(found, torch.nn.Module) else None
    return CLASSES.get(text)


def import_user_module(name: str, where: str, model_type: FindType) -> ModuleType:
    """Import a module that a user wrote. Raises UserError for one that fails, or that must be ported.

    `model_type` gives the type of ours that a name in MMSegmentation's packages corresponds to.
    """
    if name in sys.modules:
        return sys.modules[name]
    with explained_import(name, where, model_type):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py") and not is_answered():
            check_ported(Path(spec.origin), model_type, alone="." not in name)
        return importlib.import_module(name)


@contextmanager
def explained_import(name: str, where: str = "", model_type: FindType = lambda name: None) -> Iterator[None]:
    """Turn what fails while a module is imported into a UserError with its file and line."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as problem:
        raise UserError(f"{problem.filename}:{problem.lineno}: importing '{name}' fails: {problem.msg}") from None
    except Exception as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        raised = [frame for frame in frames if not imports_others(frame.filename)]
        if not raised and isinstance(problem, ModuleNotFoundError):
            raise UserError(f"{where}: {problem}; modules on PYTHONPATH are found too") from None
        file = raised[-1].filename if raised else name
        package = (problem.name or "").partition(".")[0] if isinstance(problem, ImportError) else ""
        if package in TOOLBOXES and not is_answered():
            check_ported(Path(file), model_type, TOOLBOXES)
        if isinstance(problem, ImportError) and "terrazzo's answer to" in str(problem):
            raise UserError(str(problem)) from None
        line = f":{raised[-1].lineno}" if raised else ""
        if "relative import" in str(problem):
            line += ": a module that custom_imports names alone is in no package, so it imports by whole names"
        raise UserError(f"{file}{line}: importing '{name}' fails: {type(problem).__name__}: {problem}") from problem


def imports_others(file: str) -> bool:
    """Report whether a frame of this file is one of an import itself: ours, or Python's."""
    return "importlib" in file or Path(file).is_relative_to(Path(__file__).parent)


def is_answered() -> bool:
    """Report whether MMSegmentation's packages are answered with our own parts, so that nothing needs porting."""
    compat = sys.modules.get("terrazzo.compat.finder")
    return compat is not None and compat.Finder in sys.meta_path
