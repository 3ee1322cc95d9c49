"""Integer arithmetic and pairs of numbers."""

from __future__ import annotations

from typing import Any

from terrazzo.errors import UserError


def ceil_div(a: int, b: int) -> int:
    """Divide and round up: `ceil_div(7, 2) == 4`."""
    return (a + b - 1) // b  # exported graphs divide negative numbers otherwise than Python


def as_pair(value: Any, what: str) -> tuple[Any, Any]:
    """A number twice, or a sequence of two as a tuple. Raises UserError naming `what` otherwise."""
    if isinstance(value, (int, float)):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(one, (int, float)) for one in value):
        return value[0], value[1]
    raise UserError(f"{what} must be a number or two numbers, not {value!r}")
