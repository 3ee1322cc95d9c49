"""A dict of a config that remembers the origin of each of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from terrazzo.plugins import class_text

DELETE_KEY = "_delete_"
IN_PYTHON = "assigned in Python"  # the origin of such a key


class Section(dict):
    """A dict with an origin ("file:line") for each key and its keys as attributes."""

    __slots__ = ("_origins",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "_origins", {})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key; a plain dict becomes a section."""
        super().__setitem__(key, convert(value, type(self)) if type(value) is dict else value)

    def put(self, key: Any, value: Any, origin: str | None) -> None:
        """Set a key and its origin."""
        self[key] = value
        self._origins[key] = origin

    def origin_of(self, key: Any) -> str | None:
        """The location at which a key was set, "file:line", or None."""
        return self._origins.get(key)

    def take(self, other: Section, key: Any, name: str | None = None) -> None:
        """Copy a key of another section, and its origin, to a dotted key of this one if that is given."""
        group, _, last = (name or "").rpartition(".")
        target = self.setdefault(group, Section()) if group else self
        target.put(last or key, other[key], other.origin_of(key))

    def absorb(self, other: Mapping[Any, Any], origin: str | None = None) -> None:
        """`dict.update` that copies the origins of another section too."""
        for key, value in other.items():
            self.put(key, value, (other.origin_of(key) if isinstance(other, Section) else None) or origin)

    def copy(self) -> Section:
        """A shallow copy with the same origins."""
        copy = type(self)()
        copy.absorb(self)
        return copy

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no key '{name}' here; it has {', '.join(map(str, self))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_origins":
            object.__setattr__(self, name, value)
        else:
            self.put(name, convert(value, type(self), IN_PYTHON), IN_PYTHON)

    def __delattr__(self, name: str) -> None:
        del self[name]


class InheritedSection(Section):
    """A section that came from a base file: its `update` goes into nested dicts, as mmengine's config dicts do."""

    __slots__ = ()

    def absorb(self, other: Mapping[Any, Any], origin: str | None = None) -> None:
        """Update key by key, nested dicts recursively; a dict with `_delete_` replaces."""
        for key, value in other.items():
            current = self.get(key)
            if isinstance(value, dict) and isinstance(current, InheritedSection) and not value.get(DELETE_KEY):
                current.absorb(value, origin)
            else:
                self.put(key, value, (other.origin_of(key) if isinstance(other, Section) else None) or origin)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """`dict.update`, recursive."""
        self.absorb(dict(*args, **kwargs))


class ImportedName(str):
    """The bare name of a type that a config imports; nothing is imported."""


def convert(value: Any, kind: type[Section], origin: str | None = None, *, merged: bool = False) -> Any:
    """Deep-copy dicts, lists and tuples, every dict as a section of `kind`.

    `merged=True` drops the `_delete_` keys, which have no use once a config is merged.
    """
    if isinstance(value, dict):
        section = kind()
        for key, item in value.items():
            if not (merged and key == DELETE_KEY):
                own = (value.origin_of(key) if isinstance(value, Section) else None) or origin
                by_name = key == "type" and isinstance(item, type) and item.__module__.partition(".")[0] == "torch"
                section.put(key, item.__name__ if by_name else convert(item, kind, own, merged=merged), own)
        return section
    if isinstance(value, (list, range)):
        return [convert(item, kind, origin, merged=merged) for item in value]
    if isinstance(value, tuple):
        return tuple(convert(item, kind, origin, merged=merged) for item in value)
    if isinstance(value, (type, FunctionType)):  # in a file that was executed
        return class_text(value)
    return str(value) if isinstance(value, ImportedName) else value


def plain(value: Any) -> Any:
    """Deep-copy a value as plain dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return value


def index(text: str, length: int) -> int | None:
    """The index that a part of a dotted key names in a list of a length; None for any other text."""
    number = int(text) if text.isdecimal() and len(text) < 10 else length
    return number if number < length else None


def step_into(value: Any, part: str) -> tuple[Any, Any] | None:
    """The key or index that a part of a dotted key names in a dict or list, and what is there; None if nothing is."""
    if isinstance(value, Mapping):
        key = part if part in value else index(part, 10**9)
        return (key, value[key]) if key in value else None
    position = index(part, len(value)) if isinstance(value, (list, tuple)) else None
    return None if position is None else (position, value[position])


def lookup(value: Any, key: str, default: Any = None) -> Any:
    """The value of a dotted key, whose numbers are indices of lists; `default` if there is no such key."""
    for part in key.split("."):
        found = step_into(value, part)
        if found is None:
            return default
        value = found[1]
    return value


def find_origin(value: Any, key: str, *, around: bool = False) -> str | None:
    """The origin of a dotted key, whose parts may contain dots, else of the nearest key around it that has one.

    None if there is no such key, unless `around` asks for what is around it then, too.
    """
    parts, origin = key.split("."), None
    while parts:
        names = enumerate((".".join(parts[:count]) for count in range(1, len(parts) + 1)), 1)
        count, found = next(((count, found) for count, name in names if (found := step_into(value, name))), (0, None))
        if found is None:
            return origin if around else None
        if isinstance(value, Section):
            origin = value.origin_of(found[0]) or origin
        value, parts = found[1], parts[count:]
    return origin
