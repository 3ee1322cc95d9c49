"""The limits on what a config may compute when it is evaluated without being trusted."""

from __future__ import annotations

import ast
import re
from typing import Any

MAX_STEPS = 150_000  # evaluated nodes, copied items and the like; the largest official config takes 14,000
MAX_FILE_BYTES = 100_000
MAX_STRING = 20_000  # characters of a computed string
MAX_ITEMS = 100_000  # of a list, tuple or range
MAX_KEYS = 10_000  # of a dict or set
MAX_BITS = 1024  # of an integer
MAX_DIGITS = 400  # of a number as written
MAX_KEY_BITS = 60  # of an integer used as a key: below it, hashes do not collide
MAX_DEPTH = 64  # of nested values
MAX_NESTING = 100  # of nested expressions and statements
MAX_WEIGHT = 100_000  # of a value written out in full; the largest official config has 1,725 values
MAX_KEY_WEIGHT = 1_000
MAX_FILES = 300  # base files of one config, each counted as often as it is read

SCALARS = (str, int, float, bool, type(None))
CONTAINERS = (list, tuple, dict, set)
SURROGATE = re.compile("[\ud800-\udfff]")


# what a message says that a config does, for the nodes of a syntax tree that are refused
WORDS: dict[type, str] = {
    ast.Lambda: "defines a function (lambda)",
    ast.NamedExpr: "uses `:=`",
    ast.Await: "uses `await`",
    ast.Yield: "uses `yield`",
    ast.While: "uses a `while` loop",
    ast.FunctionDef: "defines a function",
    ast.AsyncFunctionDef: "defines a function",
    ast.ClassDef: "defines a class",
    ast.Import: "imports a module",
    ast.ImportFrom: "imports a module",
    ast.With: "uses `with` for something other than read_base()",
    ast.Try: "uses `try`",
    ast.Raise: "raises an exception",
    ast.Global: "uses `global`",
}


class Refused(Exception):
    """Something that the safe subset forbids; callers that know the file and the line raise it as a UserError."""


class ComputeBudget:
    """The computation that one config may still use."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps

    def spend(self, amount: int = 1) -> None:
        """Raise Refused once everything is spent."""
        self.left -= amount
        if self.left < 0:
            raise Refused("computes more than a config may")


def weigh(value: Any, budget: ComputeBudget, most: int = MAX_WEIGHT) -> int:
    """Measure a value written out in full, shared parts counted each time.

    Raises Refused when it is larger than `most`, nested too deeply or contains itself.
    """
    known: dict[int, tuple[int, int]] = {}

    def visit(item: Any, depth: int) -> tuple[int, int]:  # weight, height
        if isinstance(item, str):
            if not item.isascii() and SURROGATE.search(item):
                raise Refused("has a text that is not Unicode: half a surrogate pair")
            return 1 + len(item) // 16, 0
        if isinstance(item, range):
            return 1 + len(item), 0
        if not isinstance(item, CONTAINERS):
            return 1, 0
        if id(item) in known:
            return known[id(item)]
        if depth > MAX_DEPTH:
            raise Refused("makes a value that is nested too deeply, or within itself")
        budget.spend(1 + len(item) // 4)
        weight, height = 1, 0
        for child in (part for pair in item.items() for part in pair) if isinstance(item, dict) else item:
            child_weight, child_height = visit(child, depth + 1)
            weight, height = weight + child_weight, max(height, child_height)
        if weight > most:
            raise Refused("makes a value that is too large")
        if height >= MAX_DEPTH:
            raise Refused("makes a value that is nested too deeply")
        known[id(item)] = weight, height + 1
        return weight, height + 1

    total = visit(value, 0)[0]
    budget.spend(total // 8)  # shared parts cost whoever compares, sorts or writes the value each time
    return total


def check(value: Any, budget: ComputeBudget) -> Any:
    """Return a value of a type and size that configs may compute. Raises Refused for any other."""
    if isinstance(value, str):
        check_length(len(value), MAX_STRING, "string")
        budget.spend(len(value) // 16)
    elif isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise Refused("makes a huge number")
    elif isinstance(value, (dict, set)):
        check_length(len(value), MAX_KEYS, type(value).__name__)
        budget.spend(len(value))
    elif isinstance(value, (list, tuple, range)):
        check_length(len(value), MAX_ITEMS, type(value).__name__)
        budget.spend(len(value) // 4)
    elif not isinstance(value, (float, type(None))):
        raise Refused(f"makes a value of type {type(value).__name__}")
    return value


def check_length(length: int, limit: int, kind: str) -> None:
    """Raise Refused for something longer than the limit."""
    if length > limit:
        unit = {"str": "characters", "string": "characters", "number": "digits"}.get(kind, "items")
        raise Refused(f"makes a {kind} of more than {limit:,} {unit}")


def check_key(key: Any, budget: ComputeBudget) -> None:
    """Raise Refused for a key whose hash could cost much time; unhashable ones raise TypeError later."""
    if isinstance(key, int) and key.bit_length() > MAX_KEY_BITS:
        raise Refused("uses a huge number as a key")
    if isinstance(key, tuple):
        if weigh(key, budget) > MAX_KEY_WEIGHT:
            raise Refused("uses a huge tuple as a key")
        for item in key:
            check_key(item, budget)
