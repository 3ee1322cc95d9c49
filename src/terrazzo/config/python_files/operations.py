"""Operators, functions and methods that configs may use, each within a bound.

Values are only ever None, bool, int, float, str, list, tuple, set, range and Section: nothing runs foreign code.
"""

from __future__ import annotations

import ast
import operator
import re
import string
from collections.abc import Callable, Iterable
from typing import Any

from terrazzo.config.python_files.limits import (
    CONTAINERS,
    MAX_BITS,
    MAX_ITEMS,
    MAX_KEYS,
    MAX_STRING,
    ComputeBudget,
    Refused,
    check,
    check_key,
    check_length,
    weigh,
)
from terrazzo.config.reading.section import Section

ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
CONVERSIONS: dict[str, Callable[[Any], str]] = {"r": repr, "s": str, "a": ascii}
FORMAT_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?#?0?\d{0,3}[,_]?(?:\.\d{1,2})?[bcdeEfFgGnosxX%]?", re.DOTALL)
PERCENT = re.compile(r"%(?:\((?P<name>\w+)\))?[-+ #0]*\d{0,3}(?:\.\d{1,2})?(?P<kind>[diouxXeEfFgGs%])")


def binary(kind: type, left: Any, right: Any, budget: ComputeBudget) -> Any:
    """`left <operator> right`. Raises Refused where the result would be too large, and what Python raises."""
    if kind not in ARITHMETIC:
        raise Refused("uses an operator that configs cannot")
    if kind is ast.Mult:
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(count, int):
                limit = MAX_STRING if isinstance(sequence, str) else MAX_ITEMS
                check_length(len(sequence) * max(count, 0), limit, type(sequence).__name__)
    elif kind is ast.Pow and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * right > MAX_BITS:
            raise Refused("makes a huge number")
    elif kind is ast.LShift and isinstance(left, int) and isinstance(right, int):
        if right > MAX_BITS:
            raise Refused("makes a huge number")
    elif kind is ast.Mod and isinstance(left, str):
        return percent(left, right, budget)
    elif kind is ast.BitOr and isinstance(left, Section) and isinstance(right, dict):
        joined = left.copy()
        Section.absorb(joined, right)
        return check(joined, budget)
    return check(ARITHMETIC[kind](left, right), budget)


def in_place(kind: type, left: Any, right: Any, budget: ComputeBudget) -> Any:
    """`left <operator>= right`: lists and dicts change in place, as in Python."""
    if isinstance(left, list) and kind is ast.Add:
        return call_method(left, "extend", [right], {}, budget) or left
    if isinstance(left, list) and kind is ast.Mult:
        left[:] = binary(kind, left, right, budget)
        return left
    if isinstance(left, Section) and kind is ast.BitOr and isinstance(right, dict):
        Section.absorb(left, right)
        return check(left, budget)
    return binary(kind, left, right, budget)


def compare(kind: type, left: Any, right: Any, budget: ComputeBudget) -> bool:
    """Compare two values, nested ones within bounds."""
    if isinstance(left, str) and isinstance(right, str):
        budget.spend(len(left) * len(right) // 1000)
    if kind not in (ast.Is, ast.IsNot):
        for value in (left, right):
            if isinstance(value, CONTAINERS):
                weigh(value, budget)
    if isinstance(right, (dict, set)) and kind in (ast.In, ast.NotIn):
        check_key(left, budget)
    return COMPARISONS[kind](left, right)


def iterate(value: Any, budget: ComputeBudget) -> list[Any]:
    """List the items of anything that configs can loop over. Raises TypeError for the rest."""
    if not isinstance(value, (str, list, tuple, dict, set, range)):
        raise TypeError(f"cannot loop over a value of type {type(value).__name__}")
    budget.spend(1 + len(value) // 4)
    return list(value)


def formatted(value: Any, spec: str, conversion: str | None, budget: ComputeBudget) -> str:
    """`format(value, spec)` after `!r`, `!s` or `!a`, with a bounded width."""
    if not FORMAT_SPEC.fullmatch(spec):
        raise Refused(f"formats with '{spec[:40]}'")
    weigh(value, budget)
    if conversion is not None:
        value = CONVERSIONS[conversion](value)
    return check(format(value, spec), budget)


def format_template(template: str, args: list[Any], kwargs: dict[str, Any], budget: ComputeBudget) -> str:
    """`str.format` for plain fields only: `{}`, `{0}`, `{name:.2f}`; attributes and items of arguments are refused."""
    pieces, automatic, length = [], 0, 0
    for literal, field, spec, conversion in string.Formatter().parse(template):
        pieces.append(literal)
        budget.spend(5)
        if field is None:
            continue
        if not re.fullmatch(r"\w*", field) or field.startswith("__"):
            raise Refused(f"formats the field '{{{field[:40]}}}'")
        if field == "":
            field, automatic = str(automatic), automatic + 1
        value = args[int(field)] if field.isdecimal() else kwargs[field]
        pieces.append(formatted(value, spec or "", conversion or None, budget))
        length += len(pieces[-1])
        check_length(length, MAX_STRING, "string")
    return check("".join(pieces), budget)


def percent(template: str, value: Any, budget: ComputeBudget) -> str:
    """`template % value`, field by field, so that the text is measured while it grows."""
    if "%" in PERCENT.sub("", template):
        raise Refused("formats with wide or unusual `%` fields")
    waiting = list(value) if isinstance(value, tuple) else [value]
    pieces, length, end = [], 0, 0
    for field in PERCENT.finditer(template):
        item: Any = ()
        if field["kind"] != "%":
            named = field["name"] is not None
            if not named and not waiting:
                raise TypeError("not enough arguments for format string")
            item = {field["name"]: value[field["name"]]} if named else (waiting.pop(0),)
            weigh(item, budget)
        pieces += [template[end : field.start()], check(field[0] % item, budget)]
        length, end = length + len(pieces[-1]) + len(pieces[-2]), field.end()
        check_length(length, MAX_STRING, "string")
    if waiting and not isinstance(value, (list, dict)):
        raise TypeError("not all arguments converted during string formatting")
    return check("".join(pieces) + template[end:], budget)


def make_range(budget: ComputeBudget, *bounds: int) -> range:
    """`range` of bounded length."""
    for bound in bounds:
        check(operator.index(bound), budget)
    result = range(*bounds)
    step = result.step
    check_length(max(0, (result.stop - result.start + step - (1 if step > 0 else -1)) // step), MAX_ITEMS, "range")
    return result


def total(budget: ComputeBudget, items: Any, start: Any = 0) -> Any:
    """`sum`, each addition within bounds."""
    for item in iterate(items, budget):
        start = binary(ast.Add, start, item, budget)
    return start


def make_set(budget: ComputeBudget, items: Any = ()) -> set[Any]:
    """`set` of bounded size."""
    result = set()
    for item in iterate(items, budget):
        check_key(item, budget)
        result.add(item)
    return check(result, budget)


def make_int(budget: ComputeBudget, value: Any = 0, *base: int) -> int:
    """`int`, from short strings only."""
    if isinstance(value, str):
        check_length(len(value), 400, "number")
    return check(int(value, *base), budget)


def make_round(budget: ComputeBudget, number: Any, digits: Any = None) -> Any:
    """`round` to at most 100 digits."""
    if digits is not None and abs(digits) > 100:
        raise Refused("rounds to a huge number of digits")
    return round(number, digits)


def weighed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that compares or writes out its arguments: weigh them first, then check the result."""

    def call(budget: ComputeBudget, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            weigh(value, budget)
        return check(function(*args, **kwargs), budget)

    call.__name__ = function.__name__
    return call


def as_list(function: Callable[..., Iterable[Any]]) -> Callable[..., Any]:
    """Wrap a function over iterables to return a list."""

    def call(budget: ComputeBudget, *iterables: Any, **kwargs: Any) -> Any:
        return check(list(function(*(iterate(value, budget) for value in iterables), **kwargs)), budget)

    call.__name__ = function.__name__
    return call


def numbered(budget: ComputeBudget, items: Any, start: int = 0) -> list[tuple[int, Any]]:
    """`enumerate` as a list."""
    return check(list(enumerate(iterate(items, budget), check(start, budget))), budget)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": weighed(abs),
    "all": weighed(all),
    "any": weighed(any),
    "bool": weighed(bool),
    "enumerate": numbered,
    "float": weighed(float),
    "int": make_int,
    "len": lambda budget, value: len(value),
    "list": as_list(list),
    "max": weighed(max),
    "min": weighed(min),
    "range": make_range,
    "reversed": as_list(reversed),  # type: ignore[arg-type]
    "round": make_round,
    "set": make_set,
    "sorted": weighed(sorted),
    "str": lambda budget, value="": formatted(value, "", "s", budget),
    "sum": total,
    "tuple": lambda budget, items=(): tuple(iterate(items, budget)),
    "zip": as_list(zip),
}

METHODS: dict[type, str] = {
    str: (
        "capitalize casefold center count endswith find format index isalnum isalpha isdecimal isdigit islower "
        "isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind "
        "rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
    ),
    list: "append clear copy count extend index insert pop remove reverse sort",
    tuple: "count index",
    Section: "clear copy get items keys pop popitem setdefault update values",
    set: "add copy difference discard intersection union",
}


def has_method(receiver: Any, name: str) -> bool:
    """Check for a method that configs may call."""
    return any(isinstance(receiver, kind) and name in names.split() for kind, names in METHODS.items())


def call_method(receiver: Any, name: str, args: list[Any], kwargs: dict[str, Any], budget: ComputeBudget) -> Any:
    """Call a method of a plain value within bounds. Raises Refused, and what Python raises."""
    if not has_method(receiver, name):
        raise Refused(f"calls .{name}() of a value of type {type(receiver).__name__}")
    budget.spend(1 + len(receiver) // 64)
    if isinstance(receiver, str):
        return call_string_method(receiver, name, args, kwargs, budget)
    if isinstance(receiver, set):
        return call_set_method(receiver, name, args, budget)
    if name in ("count", "index", "remove", "sort"):
        weigh([receiver, args], budget)
    if isinstance(receiver, list):
        grown = len(iterate(args[0], budget)) if name == "extend" and args else 1
        check_length(len(receiver) + grown, MAX_ITEMS, "list")
    if isinstance(receiver, Section):
        budget.spend(len(receiver) if name in ("clear", "copy", "items", "keys", "values") else 0)
        for key in args[:1]:
            check_key(key, budget)
        if name in ("items", "keys", "values"):
            return check(list(getattr(receiver, name)()), budget)
    return getattr(receiver, name)(*args, **kwargs)


def call_set_method(items: set[Any], name: str, args: list[Any], budget: ComputeBudget) -> Any:
    """Call a method of a set: all but `add` and `discard` take iterables and return a new set."""
    if name in ("add", "discard"):
        for key in args:
            check_key(key, budget)
        check_length(len(items) + 1, MAX_KEYS, "set")
        return getattr(items, name)(*args)
    return check(getattr(items, name)(*(make_set(budget, other) for other in args)), budget)


def call_string_method(text: str, name: str, args: list[Any], kwargs: dict[str, Any], budget: ComputeBudget) -> Any:
    """Call a method of a string; those that could write a long string are measured before they are called."""
    if name == "format":
        return format_template(text, args, kwargs, budget)
    for other in (*args, *kwargs.values()):
        parts = other if isinstance(other, tuple) else (other,)  # the beginnings of `startswith`
        longest = sum(len(part) if isinstance(part, str) else 1 for part in parts)
        budget.spend(len(parts) + len(text) * longest // 1000)
        if name in ("center", "ljust", "rjust", "zfill") and isinstance(other, int):
            check_length(other, MAX_STRING, "string")
    if name == "join" and args:
        args = [iterate(args[0], budget)]
        length = sum(len(part) for part in args[0] if isinstance(part, str)) + len(text) * len(args[0])
        check_length(length, MAX_STRING, "string")
    if name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        check_length(len(text) + text.count(args[0]) * len(args[1]), MAX_STRING, "string")
    result = getattr(str, name)(text, *args, **kwargs)
    return result if isinstance(result, bool) else check(result, budget)
