"""A transformer decoder whose queries read a map: DETR's, and Mask2Former's with masked attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from terrazzo.arguments import check_arguments
from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.transformer import FeedForward, MultiheadAttention
from terrazzo.registry import IGNORED_KEYS

T = TypeVar("T")


def build_attention(
    *,
    embed_dims: int = 256,
    num_heads: int = 8,
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
    dropout: float | None = None,
    dropout_layer: Spec | None = None,
    batch_first: bool = True,
) -> MultiheadAttention:
    """Build attention from a `*_attn_cfg`; `dropout` sets both rates, and tensors are always batch first."""
    if dropout is not None:
        attn_drop = proj_drop = dropout
    return MultiheadAttention(
        embed_dims, num_heads, attn_drop=attn_drop, proj_drop=proj_drop, drop_path=drop_probability(dropout_layer)
    )


def build_feed_forward(
    *,
    embed_dims: int = 256,
    feedforward_channels: int = 1024,
    num_fcs: int = 2,
    act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
    ffn_drop: float = 0.0,
    dropout_layer: Spec | None = None,
    add_identity: bool = True,
) -> FeedForward:
    """Build a feed-forward network from an `ffn_cfg`; its owner adds the input."""
    drop_path = drop_probability(dropout_layer)
    return FeedForward(
        embed_dims, feedforward_channels, num_fcs=num_fcs, act_cfg=act_cfg, drop=ffn_drop, drop_path=drop_path
    )


def drop_probability(dropout_layer: Spec | None) -> float:
    """Return the rate of a `dropout_layer` such as `{"type": "DropPath", "drop_prob": 0.1}`."""
    return 0.0 if dropout_layer is None else dropout_layer.get("drop_prob", 0.0)


def from_config(builder: Callable[..., T], config: Spec, where: str) -> T:
    """Call `builder` with the keys of a config. Raises UserError for a key that it does not accept."""
    config = {key: value for key, value in config.items() if key not in IGNORED_KEYS}
    check_arguments(builder, config, where, "")
    return builder(**config)


class QueryDecoderLayer(nn.Module):
    """Self-attention of the queries, their attention to a map, and a feed-forward network, each with a norm after it.

    `cross_first` attends to the map first (Mask2Former).
    """

    def __init__(
        self,
        *,
        self_attn_cfg: Spec,
        cross_attn_cfg: Spec,
        ffn_cfg: Spec,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        cross_first: bool = False,
    ) -> None:
        super().__init__()
        self.cross_first = cross_first
        self.self_attn = from_config(build_attention, self_attn_cfg, "self_attn_cfg")
        self.cross_attn = from_config(build_attention, cross_attn_cfg, "cross_attn_cfg")
        self.ffn = from_config(build_feed_forward, ffn_cfg, "ffn_cfg")
        self.norms = nn.ModuleList(build_norm(norm_cfg, self.self_attn.attn.embed_dim) for _ in range(3))

    def forward(
        self, query: Tensor, memory: Tensor, *, query_pos: Tensor, memory_pos: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Query (N, Q, C), memory (N, L, C) -> (N, Q, C); `mask` (N, 1, Q, L) is True where a query may attend."""

        def read_queries(query: Tensor) -> Tensor:
            located = query + query_pos
            return query + self.self_attn(located, located, query)

        def read_map(query: Tensor) -> Tensor:
            return query + self.cross_attn(query + query_pos, memory + memory_pos, memory, mask=mask)

        first, second = (read_map, read_queries) if self.cross_first else (read_queries, read_map)
        query = self.norms[1](second(self.norms[0](first(query))))
        return self.norms[2](query + self.ffn(query))


class QueryDecoder(nn.Module):
    """`num_layers` decoder layers, and the norm applied to their queries before each output."""

    def __init__(
        self,
        *,
        num_layers: int,
        layer_cfg: Spec,
        post_norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        return_intermediate: bool = True,
        cross_first: bool = False,
    ) -> None:
        super().__init__()
        layers = [QueryDecoderLayer(**layer_cfg, cross_first=cross_first) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.embed_dims = layers[0].self_attn.attn.embed_dim
        self.post_norm = build_norm(post_norm_cfg, self.embed_dims)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
