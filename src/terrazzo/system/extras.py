"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from terrazzo.errors import UserError
from terrazzo.system.failures import is_out_of_memory


def import_extra(module: str, extra: str, what: str) -> Any:
    """A module of an optional package. Raises UserError with the pip line where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        if is_out_of_memory(problem):
            raise
        package = module.partition(".")[0]
        raise UserError(f'{what} need {package} ({problem}): pip install "terrazzo[{extra}]"') from None
