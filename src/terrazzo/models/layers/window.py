"""Windows of attention: the order of a map's tokens in them and back, and masks between their tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers.sizes import surely
from terrazzo.models.layers.tokens import Grid
from terrazzo.system.arithmetic import ceil_div


@dataclass(frozen=True)
class Windows:
    """Tokens (N, L, C) of one grid to windows (N * count, size * size, C), row by row, and back, one copy each.

    `order` holds the token at each position of each window, from 0 to L - 1. Where windows reach out of the map, a zero
    token at position 0 fills them, and the others come after it. `mask` (count, 1, size * size, size * size), if any,
    is added to the scores.
    """

    length: int
    order: Tensor
    inverse: Tensor
    mask: Tensor | None
    count: int

    def extend(self, tokens: Tensor) -> Tensor:
        """Put a zero token first, which fills the windows that reach out of the map, where any do."""
        return tokens if surely(self.length == self.order.shape[0]) else F.pad(tokens, (0, 0, 1, 0))

    def split(self, tokens: Tensor) -> Tensor:
        """Turn extended tokens into windows."""
        windows = tokens.index_select(1, self.order)
        return windows.reshape(-1, self.order.shape[0] // self.count, tokens.shape[-1])

    def join(self, windows: Tensor) -> Tensor:
        """Turn windows into tokens (N, L, C)."""
        return windows.reshape(-1, self.order.shape[0], windows.shape[-1]).index_select(1, self.inverse)


def to_windows(x: Tensor, size: int) -> Tensor:
    """Split a map (H, W) into (windows, size * size), row by row; `size` divides both sides."""
    height, width = x.shape
    return x.reshape(height // size, size, width // size, size).transpose(1, 2).reshape(-1, size * size)


def plan_windows(grid: Grid, size: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `order` and `inverse` of a grid's windows: padded on the right and below, then shifted up and left."""
    length = grid[0] * grid[1]
    bottom, right = (ceil_div(side, size) * size - side for side in grid)
    tokens = torch.arange(1, length + 1, device=device).reshape(grid)
    tokens = F.pad(tokens, (0, right, 0, bottom)).roll((-shift, -shift), (0, 1))  # exporters keep no other value to pad
    order = to_windows(tokens, size).flatten()
    positions = torch.arange(order.numel(), device=device)
    inverse = positions.new_zeros(length + 1).scatter(0, order, positions)[1:]
    return order - 1 if surely(length == order.shape[0]) else order, inverse


def separate(regions: Tensor, size: int, penalty: float, dtype: torch.dtype) -> Tensor:
    """Turn region numbers (H, W) into (windows, 1, L, L): 0 where two positions share a region, else `penalty`."""
    windows = to_windows(regions, size)
    same = windows.unsqueeze(1) == windows.unsqueeze(2)
    return torch.where(same, 0.0, penalty).to(dtype).unsqueeze(1)


def per_image(scores: Tensor, images: int) -> Tensor:
    """Repeat the scores (count, ...) of one map's windows for `images` maps (images * count, ...)."""
    return scores.expand(images, *scores.shape).flatten(0, 1)


class WindowPlan:
    """The `Windows` of a grid, cached for the last one; `make_mask` is called with (grid, device, dtype)."""

    def __init__(self, size: int, shift: int = 0, make_mask: Callable[..., Tensor | None] | None = None) -> None:
        self.size, self.shift, self.make_mask = size, shift, make_mask
        self.cached: dict[Any, Windows] = {}

    def make(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Windows:
        order, inverse = plan_windows(grid, self.size, self.shift, device)
        mask = None if self.make_mask is None else self.make_mask(grid, device, dtype)
        return Windows(grid[0] * grid[1], order, inverse, mask, order.numel() // self.size**2)

    def __call__(self, grid: Grid, x: Tensor) -> Windows:
        """The windows of a grid, on the device and in the precision of `x`."""
        key = (grid, x.device, x.dtype)
        if torch.compiler.is_compiling():  # a traced graph keeps nothing between calls
            return self.make(*key)
        if key not in self.cached:
            with torch.inference_mode(False):  # they may be used in training later
                self.cached = {key: self.make(*key)}
        return self.cached[key]


class WindowAttention(nn.Module):
    """Attention within windows of tokens. Only real tokens are projected, so padding costs next to nothing."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        qkv_bias: bool,
        qk_scale: float | None = None,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, qk_scale
        self.qkv = nn.Linear(embed_dims, embed_dims * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def scores(self, mask: Tensor | None, images: int) -> Tensor | None:
        """Return what is added to the scores of all windows, from the `mask` of one map's."""
        return None if mask is None else per_image(mask, images)

    def attend(self, x: Tensor, windows: Windows) -> Tensor:
        """Tokens (N, H * W, C) -> tokens."""
        qkv = windows.split(self.qkv(windows.extend(x)))  # N * windows, L, 3 * C
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = self.scores(windows.mask, x.shape[0])
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, scores, dropout, scale=self.scale)
        return self.proj_drop(self.proj(windows.join(out.transpose(1, 2).flatten(2))))
