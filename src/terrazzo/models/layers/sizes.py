"""Arithmetic on sizes that stays right for every size where an export leaves them open (torch.SymInt)."""

from __future__ import annotations

from typing import Any

import torch


def surely(condition: bool | torch.SymBool) -> bool:
    """Return whether a condition on sizes holds; of sizes left open, whether it holds for all of them."""
    if isinstance(condition, bool):
        return condition
    from torch.fx.experimental.symbolic_shapes import (
        statically_known_true,  # costs half a second, exports alone need it
    )

    return statically_known_true(condition)


def same_sizes(one: Any, other: Any) -> bool:
    """Return whether two shapes are surely equal."""
    return len(one) == len(other) and all(surely(a == b) for a, b in zip(one, other, strict=True))


def larger(one: int, other: int) -> int:
    """Return the larger of two sizes."""
    return max(one, other) if isinstance(one, int) and isinstance(other, int) else torch.sym_max(one, other)


def smaller(one: int, other: int) -> int:
    """Return the smaller of two sizes."""
    return min(one, other) if isinstance(one, int) and isinstance(other, int) else torch.sym_min(one, other)


def scaled(length: int, factor: float) -> int:
    """Return a size times a factor, rounded down."""
    if isinstance(length, int):
        return int(length * factor)
    return length * int(factor) if factor == int(factor) else torch.sym_int(length * factor)


def typical(length: int) -> int:
    """Return a size, or of one left open that of the export's example, to choose between equivalent computations."""
    return length if isinstance(length, int) else length.node.hint
