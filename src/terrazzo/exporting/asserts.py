"""Asserts in users' classes, which may ask for values that a graph does not have, are left out while one is made."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

from torch import nn


@contextmanager
def without_asserts(model: nn.Module) -> Iterator[None]:
    """Run the functions of a model's own classes, and those beside them, without their asserts."""
    kept = {function: function.__code__ for function in users_functions(model)}
    for function, code in kept.items():
        bare = codes(code.co_filename).get((code.co_name, code.co_firstlineno), code)
        if bare.co_freevars == code.co_freevars:
            function.__code__ = bare
    try:
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code


def users_functions(model: nn.Module) -> set[FunctionType]:
    """The methods of a model's classes that are neither terrazzo's nor torch's, and the functions of their modules."""
    classes = {cls for part in model.modules() for cls in type(part).__mro__}
    theirs = [cls for cls in classes if cls.__module__.partition(".")[0] not in ("terrazzo", "torch", "builtins")]
    spaces = [*theirs, *(sys.modules[name] for name in {cls.__module__ for cls in theirs} if name in sys.modules)]
    found = [inspect.unwrap(getattr(item, "__func__", item)) for space in spaces for item in vars(space).values()]
    names = {cls.__module__ for cls in theirs}
    return {item for item in found if inspect.isfunction(item) and item.__module__ in names}


@cache
def codes(file: str) -> dict[tuple[str, int], CodeType]:
    """The code of each function in a file without its asserts, by its name and first line."""
    try:
        found = [compile(Path(file).read_bytes(), file, "exec", optimize=1, dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):
        return {}
    for code in found:  # which grows
        found += [item for item in code.co_consts if isinstance(item, CodeType)]
    return {(code.co_name, code.co_firstlineno): code for code in found}
