"""Write a config as a readable `.py` file."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from terrazzo.errors import UserError

WIDTH = 120
WORTH_A_NAME = 40  # length from which a value that equals an earlier variable is replaced by its name


def as_python(values: Mapping[str, Any]) -> str:
    """Return assignments that read back as `values`; a value that equals an earlier variable becomes its name.

    Raises UserError for a top-level key that is not a Python name.
    """
    lines: list[str] = []
    names: list[tuple[str, Any]] = []
    for name, value in values.items():
        if not is_name(name):
            raise UserError(f"a .py file cannot hold the top-level key '{name}': write a .yaml file")
        lines.append(f"{name} = {literal(value, names, 0, len(name) + 3)}")
        if isinstance(value, (dict, list)) and len(repr(value)) >= WORTH_A_NAME:
            names.append((name, value))
    return "\n".join(lines) + "\n"


def is_name(text: Any) -> bool:
    return isinstance(text, str) and text.isidentifier() and not keyword.iskeyword(text)


def literal(value: Any, names: list[tuple[str, Any]], indent: int, used: int) -> str:
    """Return a value as Python: on one line if it fits after `used` characters, else one item per line."""
    for name, known in names:
        if type(value) is type(known) and value == known:
            return name
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    if isinstance(value, dict) and all(map(is_name, value)):
        opening, closing = "dict(", ")"
        items = [(f"{key}=", item) for key, item in value.items()]
    elif isinstance(value, dict):
        opening, closing = "{", "}"
        items = [(f"{key!r}: ", item) for key, item in value.items()]
    else:
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
        items = [("", item) for item in value]
    inner = [head + literal(item, names, indent + 4, indent + 4 + len(head)) for head, item in items]
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = opening + ", ".join(inner) + comma + closing
    if "\n" not in line and used + len(line) <= WIDTH:
        return line
    space = " " * (indent + 4)
    return opening + "\n" + "".join(f"{space}{item},\n" for item in inner) + " " * indent + closing
