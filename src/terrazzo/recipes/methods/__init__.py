"""Methods by the words of recipe names: one function a method, a few methods a file."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

Build = Callable[..., None]


@dataclass(frozen=True)
class Family:
    """A method: the words that mean it, and the function that completes a plan."""

    folder: str  # of the official configs, which is the family's name
    pattern: str
    usual: str  # model words of its usual size
    build: Build


FAMILIES: list[Family] = []


def family(folder: str, pattern: str, usual: str) -> Callable[[Build], Build]:
    """Decorator for a function `(plan, **groups of the pattern)`; the first pattern that fits a name is taken."""

    def add(build: Build) -> Build:
        FAMILIES.append(Family(folder, pattern, usual, build))
        return build

    return add


@lru_cache(maxsize=1)
def all_families() -> list[Family]:
    """Every family, in the order in which they are tried."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(FAMILIES, key=lambda item: item.pattern.count(".+"))  # particular patterns before general ones


def find_method(words: str) -> tuple[Family, dict[str, str]] | None:
    """The family of model words, with the groups of its pattern."""
    for item in all_families():
        match = re.fullmatch(item.pattern, words)
        if match:
            return item, match.groupdict(default="")
    return None
