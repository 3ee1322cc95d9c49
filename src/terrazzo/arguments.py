"""Checks of what a config passes to a constructor: names and values of arguments, against its signature."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

from terrazzo.errors import OutOfMemory, UserError, is_out_of_memory, nearest, out_of_memory

LONGEST_VALUE = 100  # characters of a value in a message
# what a signature's annotation is called in a message
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", type(None): "None"}
# names that people carry over from the 0.x vocabulary, or guess -> the key that does it
NEW_NAMES = {
    "img_dir": "data_prefix=dict(img_path=...)",
    "ann_dir": "data_prefix=dict(seg_map_path=...)",
    "split": "ann_file",
    "CLASSES": "classes",
    "PALETTE": "palette",
    "samples_per_gpu": "batch_size",
    "workers_per_gpu": "num_workers",
    "flip_ratio": "prob",
    "grad_clip": "clip_grad",
    "cumulative_iters": "accumulative_counts",
    "metric": "iou_metrics",
    "max_keep_checkpoints": "max_keep_ckpts",
}


class Leftover(str):
    """The "file:line" of a key that was set for another `type` than the one it is now beside."""


def origin_of(section: Any, key: Any = "type") -> str | None:
    """The location at which a section's key was set, "file:line", or None where that is unknown."""
    find = getattr(section, "origin_of", None) or getattr(section, "origin", None)  # of a section, of a Config
    return find(key) if find is not None and key in section else None


def located(section: Any, key: Any, message: str) -> str:
    """A message that begins with the file and line of a key, where they are known."""
    origin = origin_of(section, key)
    return f"{origin}: {message}" if origin else message


def leftovers(section: Any, keys: Iterable[Any] | None = None) -> str:
    """A sentence about the keys that a section has from a base where its `type` was another one, or an empty text."""
    found = section if keys is None else keys
    names = [key for key in found if isinstance(origin_of(section, key), Leftover)] if section else []
    if not names:
        return ""
    listed = ", ".join(f"'{key}'" for key in names)
    places = ", ".join(dict.fromkeys(origin for key in names if (origin := origin_of(section, key)))) or "a base file"
    return (
        f"; {listed} {'comes' if len(names) == 1 else 'come'} from {places}, where `type` is another one: "
        "_delete_=True beside the new type replaces the whole section"
    )


def unknown_key(section: Any, key: Any, known: Iterable[str], owner: str, noun: str = "argument") -> UserError:
    """The error about a key that `owner` does not have, with its line and the key that was meant."""
    hint = leftovers(section, [key])
    if not hint and key in NEW_NAMES:
        hint = f"; it is {NEW_NAMES[key]}"
    return UserError(located(section, key, f"{owner} has no {noun} '{key}'{hint or nearest(str(key), known)}"))


def check_keys(section: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UserError for a key that a section does not have, and for a section that is none."""
    if not isinstance(section, Mapping):
        raise UserError(f"{where} must be a section of keys, not {shown(section)}")
    known = list(known)
    for key in section:
        if key not in known:
            raise unknown_key(section, key, known, where, "key")


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]} ..."


# Signatures


def constructors(factory: Callable[..., Any]) -> Iterable[Callable[..., Any]]:
    """The functions that take a class's keywords: its own `__init__`, and its parents' as far as they are passed on."""
    if not inspect.isclass(factory):
        yield factory
        return
    for owner in factory.__mro__:
        if "__init__" in vars(owner):
            yield vars(owner)["__init__"]


@dataclass(frozen=True)
class Signature:
    """The keywords that a class or function takes, with those it passes on to its parents, and their types."""

    names: tuple[str, ...]
    required: tuple[str, ...]  # of its own; a parent's may be given by the class itself
    types: Mapping[str, Any]
    takes_any: bool  # further ones too


@cache
def signature(factory: Callable[..., Any]) -> Signature:
    """The signature of a class or function."""
    names: dict[str, bool] = {}
    hints: dict[str, Any] = {}
    required: tuple[str, ...] | None = None
    takes_any = True
    for function in constructors(factory):
        found = inspect.signature(function).parameters.values()
        own = [p for p in found if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]
        names |= {p.name: True for p in own}
        if required is None:
            required = tuple(p.name for p in own if p.default is p.empty)
        with suppress(NameError, TypeError, AttributeError):  # names that only type checkers import
            hints = typing.get_type_hints(function) | hints
        takes_any = any(p.kind is p.VAR_KEYWORD for p in found)
        if not takes_any:
            break
    is_open = getattr(factory, "passes_on", False)  # its further keywords are another library's
    return Signature(tuple(names), required or (), hints, takes_any or is_open)


def check_arguments(
    factory: Callable[..., Any], arguments: Mapping[str, Any], name: Any, where: str, section: Any = None
) -> None:
    """Raise UserError for a keyword that `factory` does not take, a missing one, and a value of another type.

    `section` is what the config has, which knows the file and line of each key.
    """
    takes = signature(factory)
    owner = f"{name} at {where}" if where else f"{name}"
    for key, value in arguments.items():
        if key not in takes.names and not takes.takes_any:
            raise unknown_key(section, key, takes.names, owner)
        kind = takes.types.get(key, Any)
        if not fits(value, kind):
            text = f"{where or name}.{key} must be {described(kind)}, not {shown(value)}"
            raise UserError(located(section, key, text + leftovers(section, [key])))
    missing = [key for key in takes.required if key not in arguments]
    if missing:
        raise UserError(located(section, "type", needs(owner, missing)))


def needs(owner: str, missing: Sequence[str]) -> str:
    """The message about arguments that are not given."""
    return f"{owner} needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}"


MISTAKES = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, ArithmeticError, RuntimeError,
    NotImplementedError, MemoryError, OSError,
)  # fmt: skip


def construct(
    factory: Callable[..., Any], arguments: Mapping[str, Any], name: Any, where: str = "", section: Any = None
) -> Any:
    """Call `factory` with arguments from a config, after `check_arguments`, as `placed`."""
    check_arguments(factory, arguments, name, where, section)
    with placed(name, where, section):
        return factory(**arguments)


@contextmanager
def placed(name: Any, where: str = "", section: Any = None) -> Iterator[None]:
    """Turn what is raised inside into a UserError with the type, its path in the config, and its section's line."""
    owner = f"{name} at {where}" if where else f"{name}"
    try:
        yield
    except UserError as problem:
        if isinstance(problem, (PlacedError, OutOfMemory)):
            raise
        text = str(problem) if where in str(problem) else f"{owner}: {problem}"
        raise PlacedError(located(section, "type", text + leftovers(section))) from problem
    except MISTAKES as problem:
        if is_out_of_memory(problem):
            raise out_of_memory(f"to build {owner}", "use a smaller model", problem) from None
        missing = re.findall(r"'(\w+)'", str(problem).partition("required")[2]) if type(problem) is TypeError else []
        reason = " ".join(str(problem).split())[:300]
        if type(problem) not in (UserError, ValueError, RuntimeError):
            reason = f"{type(problem).__name__}: {reason}"
        text = needs(owner, missing) if missing else f"{owner} cannot be built with these values ({reason})"
        raise PlacedError(located(section, "type", text + leftovers(section))) from problem


class PlacedError(UserError):
    """A UserError that names the place in the config."""


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value from a config can be an argument of the annotated type; tuples and lists are alike."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if kind is None or kind is type(None):
        return value is None
    if kind is bool:
        return value in (False, True)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63  # as torch counts
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    base = origin or kind
    if base in (Any, object) or not inspect.isclass(base):
        return True  # type variables and callables too
    if issubclass(base, Sequence) and base is not str:
        return isinstance(value, (list, tuple)) and items_fit(list(value), base, inner)
    if issubclass(base, Mapping):
        return isinstance(value, Mapping) and (not inner or all(fits(item, inner[1]) for item in value.values()))
    if getattr(base, "_is_protocol", False):  # of an object that a section has been built as
        methods = [name for name, item in vars(base).items() if inspect.isfunction(item) and not name.startswith("_")]
        return not isinstance(value, (type(None), str, bool, int, float, list, tuple, dict)) and all(
            hasattr(value, name) for name in methods
        )
    return isinstance(value, base)


def items_fit(items: list[Any], base: type, inner: tuple[Any, ...]) -> bool:
    """Return whether the items of a list are of the annotated types, `tuple[int, int]` or `Sequence[int]`."""
    if base is tuple and inner and inner[-1] is not Ellipsis:
        return len(items) == len(inner) and all(map(fits, items, inner))
    return not inner or all(fits(item, inner[0]) for item in items)


def described(kind: Any) -> str:
    """An annotated type in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(described, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if kind in WORDS:
        return WORDS[kind]
    base = origin or kind
    if inspect.isclass(base) and issubclass(base, Sequence):
        of = [one for one in inner if one is not Ellipsis]
        if base is tuple and inner and Ellipsis not in inner:
            return f"a list of {len(of)} values, each {described(of[0])}"
        return f"a list, each item {described(of[0])}" if of and of[0] is not Any else "a list"
    if inspect.isclass(base) and issubclass(base, Mapping):
        return "a section of keys (a dict)"
    return f"a {getattr(base, '__name__', base)}"
