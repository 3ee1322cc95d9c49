"""Arithmetic on whole numbers."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """Divide and round up."""
    return -(-a // b)
