"""Integer arithmetic."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """Divide and round up: `ceil_div(7, 2) == 4`."""
    return -(-a // b)
