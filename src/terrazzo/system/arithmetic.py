"""Small arithmetic that several modules share."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """Return `a / b` rounded up to a whole number."""
    return -(-a // b)
