"""Messages about mistakes in a short form: all of them at once, each with its key, value, file and line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from terrazzo.config.reading.section import find_origin
from terrazzo.errors import UserError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

    from terrazzo.config.short_form.types import Expected

LONGEST_VALUE = 100  # characters of a value in a message
MOST = 50  # problems in one message


@dataclass(frozen=True)
class Problem:
    """A mistake in a short form and the dotted key that it concerns."""

    key: str
    text: str


def problems_of(error: ValidationError, values: Mapping[str, Any], model: type[BaseModel]) -> list[Problem]:
    """Return one problem for each key that pydantic rejected."""
    found: dict[str, tuple[int, Problem]] = {}
    for item in error.errors(include_url=False):
        depth, problem = len(item["loc"]), problem_of(item["loc"], item["type"], values, model)
        if problem.key not in found or depth > found[problem.key][0]:  # of a union's types, the one that got furthest
            found[problem.key] = depth, problem
    return [problem for _, problem in found.values()]


def problem_of(location: tuple[Any, ...], kind: str, values: Any, model: type[BaseModel] | None) -> Problem:
    """Return the problem at a location of pydantic's: keys, indices of items, and names of types within a union."""
    path: list[str] = []
    field: FieldInfo | None = None
    value, item = values, ""
    for step in location:
        if model is not None and isinstance(value, Mapping):
            path.append(str(step))
            key = ".".join(path)
            if step not in model.model_fields:
                return Problem(key, f"unknown key '{key}'{nearest(str(step), model.model_fields)}")
            field, value = model.model_fields[step], value.get(step)
            model = section_of(field)
        elif isinstance(step, int) and isinstance(value, (list, tuple)) and not item:
            item = f" (item {step + 1}: {shown(value[step])})" if len(value) > 1 else ""
    assert field is not None
    key, expected = ".".join(path), next(expectations(field))
    if kind == "missing":
        return Problem(key, f"`{key}` is missing: {expected.text}")
    if value is None:
        return Problem(key, f"{key} is empty: it must be {expected.text}")
    near = nearest(value, expected.words) if isinstance(value, str) else ""
    return Problem(key, f"{key} must be {expected.text}, not {shown(value)}{item}{near}")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a key that is a section itself."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in candidates if hasattr(kind, "model_fields")), None)


def expectations(field: FieldInfo) -> Iterator[Expected]:
    """Yield what the type of a key accepts, from its outermost annotation inwards."""
    waiting = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop(0)
        if getattr(part, "text", None):
            yield part
        waiting += get_args(part) if get_origin(part) is not Annotated else [*part.__metadata__, *get_args(part)]


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]} ..."


def report(problems: Iterable[Problem], values: Mapping[str, Any], path: Path | None) -> UserError:
    """Return the error that lists problems, each with the line of its key."""
    file = "the short form" if path is None else str(path)
    lines = [f"{find_origin(values, problem.key, around=True) or file}: {problem.text}" for problem in problems]
    if len(lines) == 1:
        return UserError(lines[0])
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return UserError("\n  ".join([f"{file}: {len(lines)} problems", *lines[:MOST], *more]))
