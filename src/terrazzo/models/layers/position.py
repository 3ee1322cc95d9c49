"""Position embeddings for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from terrazzo.models.layers.resize import resize


def resize_position_embedding(
    embedding: Tensor, source: Sequence[int], grid: Sequence[int], *, extra_tokens: int = 1, mode: str = "bicubic"
) -> Tensor:
    """Resize an embedding (1, extra_tokens + h * w, C) from the `source` grid (h, w) to `grid`; extra tokens stay."""
    if tuple(source) == tuple(grid):
        return embedding
    extra, patches = embedding[:, :extra_tokens], embedding[:, extra_tokens:]
    patches = patches.transpose(1, 2).unflatten(2, tuple(source))  # 1, C, h, w
    patches = resize(patches, grid, mode=mode).flatten(2).transpose(1, 2)
    return torch.cat([extra, patches], dim=1)


def to_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """Return tokens (N, h * w, C) as a contiguous map (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid)).contiguous()


def resize_learned(
    embedding: Tensor, grid: Sequence[int], *, extra_tokens: int, mode: str = "bicubic"
) -> Tensor | None:
    """Resize an embedding (1, extra_tokens + n * n, C) of any square image to `grid`; None for any other shape."""
    side = math.isqrt(max(embedding.shape[1] - extra_tokens, 0)) if embedding.ndim == 3 else 0
    if side == 0 or side**2 + extra_tokens != embedding.shape[1]:
        return None
    return resize_position_embedding(embedding, (side, side), grid, extra_tokens=extra_tokens, mode=mode)
