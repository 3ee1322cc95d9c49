"""Values as configs give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrazzo.errors import UserError


def as_pair(value: Any, name: str) -> tuple[Any, Any]:
    """Return a number twice, or a sequence of two as a tuple. Raises UserError otherwise; `name` is its key."""
    if isinstance(value, (int, float)):
        return value, value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return value[0], value[1]
    raise UserError(f"{name} must be a number or two numbers, not {value!r}")
