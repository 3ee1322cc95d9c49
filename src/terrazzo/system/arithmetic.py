"""Integer arithmetic and pairs of numbers."""

from __future__ import annotations

import math
from typing import Any

from terrazzo.errors import UserError


def ceil_div(a: int, b: int) -> int:
    """Divide and round up: `ceil_div(7, 2) == 4`."""
    return (a + b - 1) // b  # exported graphs divide negative numbers otherwise than Python


def is_finite(value: Any) -> bool:
    """Return whether a value is a number, neither infinite nor NaN."""
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def as_pair(value: Any, what: str) -> tuple[Any, Any]:
    """A finite number twice, or a sequence of two as a tuple. Raises UserError naming `what` otherwise."""
    pair = (value, value) if isinstance(value, (int, float)) else value
    if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(is_finite, pair)):
        return pair[0], pair[1]
    raise UserError(f"{what} must be a number or two numbers, not {value!r}")
