"""Parts of all transformer families: attention, feed-forward network, encoder layers.

Attention and feed-forward return the residual branch only; the caller adds it.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers.activation import build_activation
from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.resize import at_least
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.tokens import Grid, as_map, as_tokens
from terrazzo.models.layers.training import DropPath, maybe_checkpoint


class DotProductAttention(nn.MultiheadAttention):
    """The parameters of torch's multi-head attention, batch first, fused; returns the output alone.

    `mask` is as in `scaled_dot_product_attention`: True where attention is allowed, or a float added to the scores;
    it broadcasts to (N, heads, L, S).
    """

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Query (N, L, C); key and value (N, S, C), by default the query and the key."""
        query, key, value = (self.split_heads(x) for x in self.project(query, key, value))
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout)  # N, heads, L, C / heads
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def project(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> tuple[Tensor, ...]:
        """Projected query, key and value, in as few products as their sources allow."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if key is None:
            return F.linear(query, weight, bias).chunk(3, dim=-1)
        query_bias, other_bias = (None, None) if bias is None else (bias[:width], bias[width:])
        projected = F.linear(query, weight[:width], query_bias)
        if value is None:
            return projected, *F.linear(key, weight[width:], other_bias).chunk(2, dim=-1)
        key_bias, value_bias = (None, None) if other_bias is None else other_bias.chunk(2)
        key = F.linear(key, weight[width : 2 * width], key_bias)
        return projected, key, F.linear(value, weight[2 * width :], value_bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, heads, L, C / heads)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


class AttentionBranch(nn.Module):
    """Attention with the parameter names `attn.*` of published checkpoints, output dropout and stochastic depth."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.attn = DotProductAttention(embed_dims, num_heads, attn_drop, bias=qkv_bias, batch_first=True)
        self.proj_drop = nn.Dropout(proj_drop)
        self.drop_path = DropPath(drop_path)

    def attend(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Query (N, L, C); key and value (N, S, C), by default the query and the key."""
        return self.drop_path(self.proj_drop(self.attn(query, key, value, mask=mask)))


class MultiheadAttention(AttentionBranch):
    """Attention of queries to keys, or of one sequence to itself."""

    forward = AttentionBranch.attend


class FeedForward(nn.Module):
    """Linear layers with an activation between them, on the last axis."""

    def __init__(
        self,
        embed_dims: int,
        feedforward_channels: int,
        *,
        num_fcs: int = 2,
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = embed_dims
        for _ in range(num_fcs - 1):
            linear = nn.Linear(width, feedforward_channels)
            layers.append(nn.Sequential(linear, build_activation(act_cfg), nn.Dropout(drop)))
            width = feedforward_channels
        self.layers = nn.Sequential(*layers, nn.Linear(width, embed_dims), nn.Dropout(drop))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.layers(x))


class TransformerEncoderLayer(nn.Module):
    """A pre-norm layer of ViT (Dosovitskiy et al., ICLR 2021): attention, then the feed-forward network."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        *,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_fcs: int = 2,
        qkv_bias: bool = True,
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.ln1 = build_norm(norm_cfg, embed_dims)
        drops: Spec = {"attn_drop": attn_drop_rate, "proj_drop": drop_rate, "drop_path": drop_path_rate}
        self.attn = MultiheadAttention(embed_dims, num_heads, qkv_bias=qkv_bias, **drops)
        self.ln2 = build_norm(norm_cfg, embed_dims)
        drops = {"drop": drop_rate, "drop_path": drop_path_rate}
        self.ffn = FeedForward(embed_dims, feedforward_channels, num_fcs=num_fcs, act_cfg=act_cfg, **drops)

    def residuals(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.ffn(self.ln2(x))

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.residuals, x, enabled=self.with_cp)


class PreNormLayer(nn.Module):
    """Attention and a feed-forward network, each a residual branch after a norm, with the names of hierarchical models.

    `layout` is what attention needs besides the tokens: their grid, or their windows.
    """

    def __init__(
        self, embed_dims: int, attn: nn.Module, ffn: nn.Module, *, norm_cfg: Spec, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = build_norm(norm_cfg, embed_dims)
        self.attn = attn
        self.norm2 = build_norm(norm_cfg, embed_dims)
        self.ffn = ffn

    def residuals(self, x: Tensor, layout: Any) -> Tensor:
        x = x + self.attn(self.norm1(x), layout)
        return x + self.ffn(self.norm2(x))

    def forward(self, x: Tensor, layout: Any) -> Tensor:
        """Tokens (N, L, C) -> tokens."""
        return maybe_checkpoint(self.residuals, x, layout, enabled=self.with_cp)


class EfficientAttention(AttentionBranch):
    """Attention whose keys and values come from the map shrunk by `sr_ratio` (PVT, Wang et al., ICCV 2021)."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        sr_ratio: int = 1,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        **options: Any,
    ) -> None:
        super().__init__(embed_dims, num_heads, **options)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(embed_dims, embed_dims, sr_ratio, stride=sr_ratio)
            self.norm = build_norm(norm_cfg, embed_dims)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) of the grid (h, w) -> the residual branch."""
        if self.sr_ratio == 1:
            return self.attend(x)
        return self.attend(x, self.norm(as_tokens(self.sr(at_least(as_map(x, grid), self.sr_ratio)))))


class ClipLayer(nn.Module):
    """Attention and a feed-forward network, each after a norm (Radford et al., ICML 2021)."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4,
        *,
        qkv_bias: bool = True,
        act_cfg: Spec = {"type": "QuickGELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        width = int(mlp_ratio * embed_dims)
        self.attentions = nn.ModuleList([MultiheadAttention(embed_dims, num_heads, qkv_bias=qkv_bias)])
        self.ffns = nn.ModuleList([FeedForward(embed_dims, width, act_cfg=act_cfg)])
        self.norms = nn.ModuleList(build_norm(norm_cfg, embed_dims) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (N, L, C); `mask` as in `scaled_dot_product_attention`."""
        x = x + self.attentions[0](self.norms[0](x), mask=mask)
        return x + self.ffns[0](self.norms[1](x))
