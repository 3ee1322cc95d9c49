"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from terrazzo.errors import UserError, shortage_behind


def import_extra(module: str, extra: str, what: str, install: str | None = None) -> Any:
    """A module of an optional package. Raises UserError with the pip line where it is not installed.

    `install` is the pip line of a package that no extra has. Memory that ends during the import is no UserError.
    """
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        if shortage_behind(problem) is not None:
            raise
        package = module.partition(".")[0]
        if not isinstance(problem, ModuleNotFoundError) and importlib.util.find_spec(package) is not None:
            raise UserError(f"{what} need {package}, which is installed but cannot be imported ({problem})") from None
        line = install or f'pip install "terrazzo[{extra}]"'
        raise UserError(f"{what} need {package} ({problem}): {line}") from None
