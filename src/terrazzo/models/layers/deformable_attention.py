"""Multi-scale deformable attention in plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers.init import init_zeros
from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.query_decoder import build_feed_forward, from_config
from terrazzo.models.layers.spec import Spec

Sizes = Sequence[tuple[int, int]]  # height and width of each level


class MultiScaleDeformableAttention(nn.Module):
    """Attention of each query to a few points of every level (Deformable DETR, Zhu et al., ICLR 2021)."""

    def __init__(
        self,
        *,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        im2col_step: int = 64,  # belongs to a compiled operator
        dropout: float = 0.1,
        batch_first: bool = True,
        norm_cfg: Spec | None = None,
        value_proj_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_levels * num_points)
        width = int(embed_dims * value_proj_ratio)
        self.value_proj = nn.Linear(embed_dims, width)
        self.output_proj = nn.Linear(width, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Point every head in its own direction, its points ever farther away, with equal weights."""
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # heads, 2
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * steps[:, None]  # heads, 1, points, 2
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        init_zeros(self.attention_weights)
        for projection in (self.value_proj, self.output_proj):
            init_zeros(projection)
            nn.init.xavier_uniform_(projection.weight)

    def forward(self, query: Tensor, value: Tensor, points: Tensor, sizes: Sizes) -> Tensor:
        """Query (N, L, C) at points (L, 2), x and y in 0..1; value (N, S, C), the levels of `sizes` concatenated."""
        heads = self.num_heads
        shape = (heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))  # N, L, heads, levels, points, 2
        weights = self.attention_weights(query).unflatten(-1, (heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        across, down = offsets.unbind(-1)
        places = [
            points[:, None, None] + torch.stack([across[:, :, :, level] / width, down[:, :, :, level] / height], dim=-1)
            for level, (height, width) in enumerate(sizes)
        ]
        output = sample_levels(self.value_proj(value).unflatten(-1, (heads, -1)), sizes, places, weights)
        return self.dropout(self.output_proj(output))


def sample_levels(value: Tensor, sizes: Sizes, places: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The weighted sum (N, L, C) of the values of a pyramid (N, S, heads, C / heads) at a few points of every level.

    `places` (N, L, heads, points, 2) of each level are x and y in 0..1, `weights` (N, L, heads, levels, points).
    """
    parts = []  # each N * heads, C / heads, L
    for level, x in enumerate(value.split([height * width for height, width in sizes], dim=1)):
        x = x.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, sizes[level])  # N * heads, C / heads, h, w
        grid = (2 * places[level] - 1).transpose(1, 2).flatten(0, 1)  # N * heads, L, points, 2
        sampled = F.grid_sample(x, grid, align_corners=False)  # N * heads, C / heads, L, points
        parts.append((sampled * weights[:, :, :, level].transpose(1, 2).flatten(0, 1).unsqueeze(1)).sum(-1))
    return reduce(torch.add, parts).unflatten(0, (-1, value.shape[2])).flatten(1, 2).transpose(1, 2)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention of a pyramid and a feed-forward network, each with a norm after it."""

    def __init__(
        self,
        *,
        self_attn_cfg: Spec,
        ffn_cfg: Spec,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        self.self_attn = from_config(MultiScaleDeformableAttention, self_attn_cfg, "self_attn_cfg")
        self.ffn = from_config(build_feed_forward, ffn_cfg, "ffn_cfg")
        width = self.self_attn.output_proj.out_features
        self.norms = nn.ModuleList(build_norm(norm_cfg, width) for _ in range(2))

    def forward(self, x: Tensor, positions: Tensor, points: Tensor, sizes: Sizes) -> Tensor:
        x = self.norms[0](x + self.self_attn(x + positions, x, points, sizes))
        return self.norms[1](x + self.ffn(x))


class DeformableEncoder(nn.Module):
    """Layers of attention among all pixels of a pyramid."""

    def __init__(self, *, num_layers: int, layer_cfg: Spec) -> None:
        super().__init__()
        layers = [DeformableEncoderLayer(**layer_cfg) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.num_levels = layers[0].self_attn.num_levels

    def forward(self, x: Tensor, positions: Tensor, sizes: Sizes) -> Tensor:
        """Tokens (N, S, C) of all levels, concatenated, and their positions (1, S, C)."""
        points = torch.cat([pixel_centres(size, x) for size in sizes])
        for layer in self.layers:
            x = layer(x, positions, points, sizes)
        return x


def pixel_centres(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return the centre of each pixel of a map, row by row (h * w, 2): x and y in 0..1."""
    rows, columns = [(torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length for length in size]
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)
