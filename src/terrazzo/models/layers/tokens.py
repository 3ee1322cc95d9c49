"""A sequence of tokens as a map and back, without copies."""

from __future__ import annotations

from torch import Tensor

Grid = tuple[int, int]


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens (N, h * w, C) seen as a map (N, C, h, w) in channels-last memory, without a copy."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_tokens(x: Tensor) -> Tensor:
    """A map (N, C, h, w) as tokens (N, h * w, C); without a copy from channels-last memory."""
    return x.flatten(2).transpose(1, 2)
