"""Attention between the positions of feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def positions(x: Tensor) -> Tensor:
    """A map (N, C, H, W) as a sequence of its positions (N, 1, H * W, C), with one attention head."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Each position of `query` (N, C, H, W) reads `value` by its likeness to `key` -> (N, D, H, W).

    `key` (N, C, ...) and `value` (N, D, ...) share their positions; `scale` is 1 / sqrt(C) unless given.
    """
    queries, keys, values = positions(query), positions(key), positions(value)
    if query.shape[1] == value.shape[1]:  # the kernels that never hold all similarities want packed sequences
        queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    context = F.scaled_dot_product_attention(queries, keys, values, scale=scale)
    return context.squeeze(1).transpose(1, 2).unflatten(2, query.shape[2:])


class MapAttention(nn.Module):
    """Attention of the positions of one map to those of another, from the given projections.

    `key_pool` reduces keys and values; `scale` multiplies the similarities (1 / sqrt(channels) unless given).
    """

    def __init__(
        self,
        *,
        key: nn.Module,
        query: nn.Module,
        value: nn.Module,
        out: nn.Module | None = None,
        key_pool: nn.Module | None = None,
        query_pool: nn.Module | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.key_project = key
        self.query_project = query
        self.value_project = value
        self.out_project = out
        self.key_pool = key_pool
        self.query_pool = query_pool
        self.scale = scale

    def read(self, query: Tensor, key: Tensor) -> Tensor:
        """Return what a map (N, *, H, W) reads from another (N, *, h, w)."""
        query = self.query_project(query)
        if self.query_pool is not None:
            query = self.query_pool(query)
        key, value = self.key_project(key), self.value_project(key)
        if self.key_pool is not None:
            key, value = self.key_pool(key), self.key_pool(value)
        context = attend(query, key, value, self.scale)
        return context if self.out_project is None else self.out_project(context)


class SelfAttention(MapAttention):
    """Attention as a module of two maps, the one that reads and the one that is read."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.read(query, key)


class Scale(nn.Module):
    """A learnable factor, for a branch that starts switched off."""

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
