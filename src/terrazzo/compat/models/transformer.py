"""The parts of transformers as mmcv builds them."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.compat.models.layers import OTHER, THEIRS, build_dropout, build_norm_layer, builder_with_defaults
from terrazzo.compat.models.module import BaseModule, ModuleList
from terrazzo.compat.models.operators import multi_scale_deformable_attn_pytorch
from terrazzo.models.layers import deformable_attention, query_decoder, tokens, transformer

RELU: Any = {"type": "ReLU", "inplace": True}
LN: Any = {"type": "LN"}
DROPOUT: Any = {"type": "Dropout", "drop_prob": 0.0}


class MultiScaleDeformableAttention(BaseModule, deformable_attention.MultiScaleDeformableAttention):
    """Attention of each query to a few points of every level (Deformable DETR, Zhu et al., ICLR 2021)."""

    def __init__(
        self, embed_dims: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4,
        im2col_step: int = 64, dropout: float = 0.1, batch_first: bool = False, norm_cfg: Any = None,
        init_cfg: Any = None, value_proj_ratio: float = 1.0,
    ) -> None:  # fmt: skip
        options: Any = {"num_heads": num_heads, "num_levels": num_levels, "num_points": num_points, "dropout": dropout}
        super(BaseModule, self).__init__(embed_dims=embed_dims, **options, value_proj_ratio=value_proj_ratio)
        self.embed_dims, self.im2col_step, self.batch_first = embed_dims, im2col_step, batch_first
        vars(self).update(_is_init=False, init_cfg=init_cfg)

    def init_weights(self) -> None:
        deformable_attention.MultiScaleDeformableAttention.init_weights(self)
        vars(self)["_is_init"] = True

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Any = None, value: Any = None, identity: Any = None, query_pos: Any = None,
        key_padding_mask: Any = None, reference_points: Any = None, spatial_shapes: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        value, identity = query if value is None else value, query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value).unflatten(-1, (self.num_heads, -1))
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None, None], 0.0)
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        places = reference_points[:, :, None, :, None, :]
        scale: Any = 1 / spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None]
        if reference_points.shape[-1] == 4:  # boxes
            scale = places[..., 2:] * 0.5 / self.num_points
        places = places[..., :2] + offsets * scale
        output = self.output_proj(multi_scale_deformable_attn_pytorch(value, spatial_shapes, places, weights))
        return identity + self.dropout(output if self.batch_first else output.transpose(0, 1))


class LayerScale(nn.Module):
    """A factor for each channel of tokens (N, L, C) or, channels first, of maps (N, C, H, W)."""

    def __init__(
        self, dim: int, inplace: bool = False, data_format: str = "channels_last", scale: float = 1e-5
    ) -> None:
        super().__init__()
        self.data_format, self.weight = data_format, nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight if self.data_format == "channels_last" else self.weight.view(-1, 1, 1))


class FFN(BaseModule):
    """Linear layers with activations between them, added to the input with `add_identity`."""

    def __init__(
        self, embed_dims: int = 256, feedforward_channels: int = 1024, num_fcs: int = 2, act_cfg: Any = RELU,
        ffn_drop: float = 0.0, dropout_layer: Any = None, add_identity: bool = True, init_cfg: Any = None,
        layer_scale_init_value: float = 0.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        options: dict[str, Any] = {"num_fcs": num_fcs, "act_cfg": act_cfg, "drop": kwargs.get("dropout", ffn_drop)}
        self.layers = transformer.FeedForward(embed_dims, feedforward_channels, **options).layers
        self.embed_dims, self.add_identity = embed_dims, kwargs.get("add_residual", add_identity)
        self.feedforward_channels, self.num_fcs = feedforward_channels, num_fcs
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()
        self.gamma2 = LayerScale(embed_dims, scale=layer_scale_init_value) if layer_scale_init_value else nn.Identity()

    def forward(self, x: Tensor, identity: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        out = self.dropout_layer(self.gamma2(self.layers(x)))
        before = next(item for item in (identity, residual, x) if item is not None)
        return before + out if self.add_identity else out


class MultiheadAttention(BaseModule):
    """torch's multi-head attention with positions, added to the identity; (L, N, C) unless `batch_first`."""

    def __init__(
        self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0,
        dropout_layer: Any = DROPOUT, init_cfg: Any = None, batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        dropout_layer = dict(dropout_layer or {})
        if "dropout" in kwargs:
            attn_drop = dropout_layer["drop_prob"] = kwargs.pop("dropout")
        self.embed_dims, self.num_heads, self.batch_first = embed_dims, num_heads, batch_first
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, attn_drop, **kwargs)
        self.proj_drop = nn.Dropout(proj_drop)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(
        self, query: Tensor, key: Any = None, value: Any = None, identity: Any = None, query_pos: Any = None,
        key_pos: Any = None, attn_mask: Any = None, key_padding_mask: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        key = query if key is None else key
        value = key if value is None else value
        identity = kwargs.get("residual", query) if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        query = query if query_pos is None else query + query_pos
        key = key if key_pos is None else key + key_pos
        if self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        out = self.attn(query, key, value, attn_mask=attn_mask, key_padding_mask=key_padding_mask)[0]
        return identity + self.dropout_layer(self.proj_drop(out.transpose(0, 1) if self.batch_first else out))


class AttentionBranch(transformer.MultiheadAttention):
    """Attention of a vision transformer's layer, also added to an `identity`."""

    def forward(self, query: Tensor, *others: Tensor, identity: Any = None, **options: Any) -> Tensor:  # type: ignore[override]
        out = super().forward(query, *others, **options)
        return out if identity is None else identity + out


class FeedForwardBranch(transformer.FeedForward):
    def forward(self, x: Tensor, identity: Any = None) -> Tensor:
        return super().forward(x) if identity is None else identity + super().forward(x)


THEIRS |= {transformer.MultiheadAttention: AttentionBranch, transformer.FeedForward: FeedForwardBranch}


class AdaptivePadding(nn.Module):
    """Zeros on the right and below ("corner"), or around ("same"), until the last window is whole."""

    forward = tokens.PatchEmbed.pad

    def __init__(self, kernel_size: Any = 1, stride: Any = 1, dilation: Any = 1, padding: str = "corner") -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = map(tokens.pair, (kernel_size, stride, dilation))
        self.padding = self.adaptive_padding = padding
        self.projection: Any = SimpleNamespace(kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation)


class PatchEmbed(BaseModule, tokens.PatchEmbed):
    """Project each patch of an image to a token -> tokens (N, L, C) and their grid."""

    def __init__(
        self, in_channels: int = 3, embed_dims: int = 768, conv_type: str = "Conv2d", kernel_size: Any = 16,
        stride: Any = None, padding: Any = "corner", dilation: Any = 1, bias: bool = True, norm_cfg: Any = None,
        input_size: Any = None, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        options = {"padding": padding, "dilation": dilation, "bias": bias, "norm_cfg": norm_cfg}
        tokens.PatchEmbed.__init__(self, in_channels, embed_dims, kernel_size, stride or kernel_size, **options)
        self._is_init, self.init_cfg, self.embed_dims = False, init_cfg, embed_dims
        size = tokens.pair(input_size) if input_size else None
        self.init_out_size = self(torch.zeros(1, in_channels, *size))[1] if size else None
        self.init_input_size = size


class Positions(tokens.SinePositions):
    """Positions of a map (N, C, H, W) as tokens, and of what a mask (N, H, W) leaves visible as a map."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return super().forward(x)
        assert not x.any(), "positions of a padded batch are not those of the whole map"
        found = super().forward(x.new_zeros(1, 1, *x.shape[-2:], dtype=torch.float32))
        return found.transpose(1, 2).unflatten(2, tuple(x.shape[-2:])).expand(x.shape[0], -1, -1, -1)


class SinePositionalEncoding(BaseModule):
    """Sines and cosines of the positions that a mask (N, H, W) leaves visible -> (N, C, H, W)."""

    def __init__(self, num_feats: int, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(init_cfg)
        kwargs |= dict(zip(("temperature", "normalize", "scale", "eps", "offset"), args, strict=False))
        self.num_feats, self.positions = num_feats, Positions(num_feats=num_feats, **kwargs)

    def forward(self, mask: Tensor) -> Tensor:
        return self.positions(mask)


class QueryDecoderLayer(query_decoder.QueryDecoderLayer):
    """Mask2Former's layer, also by the names of its arguments there, where a mask tells what no query attends to."""

    def forward(self, query: Tensor, memory: Any = None, *, key: Any = None, **given: Any) -> Tensor:
        if key is None:
            return super().forward(query, memory, **given)
        mask = given.get("cross_attn_mask")
        mask = None if mask is None else ~mask.unflatten(0, (query.shape[0], -1))
        return super().forward(query, key, query_pos=given["query_pos"], memory_pos=given["key_pos"], mask=mask)


THEIRS |= {tokens.SinePositions: Positions, query_decoder.QueryDecoderLayer: QueryDecoderLayer}


class BaseTransformerLayer(BaseModule):
    """Attentions, feed-forward networks and norms in an order such as ("self_attn", "norm", "ffn", "norm")."""

    def __init__(
        self, attn_cfgs: Any = None, ffn_cfgs: Any = None, operation_order: Sequence[str] = (), norm_cfg: Any = LN,
        init_cfg: Any = None, batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        renamed = {"feedforward_channels": "feedforward_channels", "ffn_dropout": "ffn_drop", "ffn_num_fcs": "num_fcs"}
        given = {new: kwargs[old] for old, new in renamed.items() if old in kwargs}
        self.batch_first, self.operation_order = batch_first, tuple(operation_order)
        self.pre_norm = self.operation_order[0] == "norm"
        kinds = [step for step in self.operation_order if step.endswith("attn")]
        self.num_attn, self.attentions = len(kinds), ModuleList()
        for kind, cfg in zip(kinds, each_of(attn_cfgs, len(kinds)), strict=True):
            self.attentions.append(build_attention({"batch_first": batch_first, **cfg}))
            self.attentions[-1].operation_name = kind
        self.embed_dims = self.attentions[0].embed_dims
        own, count = {"type": "FFN", "embed_dims": self.embed_dims}, self.operation_order.count
        ffns = [{**own, **cfg, **given} for cfg in each_of(ffn_cfgs or {}, count("ffn"))]
        self.ffns = ModuleList(map(build_attention, ffns))
        self.norms = ModuleList(build_norm_layer(norm_cfg, self.embed_dims)[1] for _ in range(count("norm")))

    def forward(
        self, query: Tensor, key: Any = None, value: Any = None, query_pos: Any = None, key_pos: Any = None,
        attn_masks: Any = None, query_key_padding_mask: Any = None, key_padding_mask: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        attentions, norms, ffns = iter(self.attentions), iter(self.norms), iter(self.ffns)
        masks, identity = iter(each_of(attn_masks, self.num_attn)), query
        for step in self.operation_order:
            before = identity if self.pre_norm else None
            if step == "norm":
                query = next(norms)(query)
            elif step == "ffn":
                query = identity = next(ffns)(query, before)
            else:
                own = step == "self_attn"
                query = identity = next(attentions)(
                    query, query if own else key, query if own else value, before, query_pos=query_pos,
                    key_pos=query_pos if own else key_pos, attn_mask=next(masks),
                    key_padding_mask=query_key_padding_mask if own else key_padding_mask, **kwargs,
                )  # fmt: skip
        return query


def each_of(given: Any, count: int) -> Sequence[Any]:
    """One value for each of several parts: those of a list, or copies of the one."""
    return given if isinstance(given, (list, tuple)) else [copy.deepcopy(given) for _ in range(count)]


class TransformerLayerSequence(BaseModule):
    def __init__(self, transformerlayers: Any = None, num_layers: Any = None, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.num_layers = num_layers
        self.layers = ModuleList(map(build_attention, each_of(transformerlayers, num_layers)))
        self.embed_dims, self.pre_norm = (getattr(self.layers[0], key, None) for key in ("embed_dims", "pre_norm"))

    def forward(self, query: Tensor, key: Any, value: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            query = layer(query, key, value, **kwargs)
        return query


class Attention(nn.Module):
    """Attention among the places of a map (N, H, W, C) -> the same, positions relative on each axis (SAM's encoder)."""

    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter

    def __init__(
        self, embed_dims: int, num_heads: int = 8, qkv_bias: bool = True, use_rel_pos: bool = False,
        input_size: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_heads, self.use_rel_pos = num_heads, use_rel_pos
        self.qkv, self.proj = nn.Linear(embed_dims, 3 * embed_dims, qkv_bias), nn.Linear(embed_dims, embed_dims)
        for name, side in zip("hw", input_size if use_rel_pos else (), strict=False):
            table = nn.Parameter(torch.zeros(2 * side - 1, embed_dims // num_heads))
            self.register_parameter(f"rel_pos_{name}", table)

    def forward(self, x: Tensor) -> Tensor:
        size, bias = x.shape[1:3], None
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
        if self.use_rel_pos:
            rows = torch.einsum("nhyxc,ykc->nhyxk", query, _between_places(self.rel_pos_h, size[0]))
            columns = torch.einsum("nhyxc,xkc->nhyxk", query, _between_places(self.rel_pos_w, size[1]))
            bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        query, key, value = (part.flatten(2, 3) for part in (query, key, value))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(found.transpose(1, 2).reshape(x.shape))


def _between_places(table: Tensor, side: int) -> Tensor:
    """Relative positions (2 S - 1, C), resized to a side, of each place to each other one (side, side, C)."""
    if table.shape[0] != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places + side - 1]


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """A map (N, H, W, C), enlarged by zeros, as windows (N * number, side, side, C); and its size then."""
    bottom, right = (-side % window_size for side in x.shape[1:3])
    x = F.pad(x, (0, 0, 0, right, 0, bottom))
    parts = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size)).transpose(2, 3)
    return parts.flatten(0, 2), (x.shape[1], x.shape[2])


def window_unpartition(windows: Tensor, window_size: int, pad_hw: Any, hw: Any) -> Tensor:
    """The map (N, H, W, C) of windows, without what was added to it."""
    rows, columns = (side // window_size for side in pad_hw)
    parts = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)[:, : hw[0], : hw[1]].contiguous()


KINDS = (FFN, MultiheadAttention, MultiScaleDeformableAttention, BaseTransformerLayer, TransformerLayerSequence,
         SinePositionalEncoding)  # fmt: skip
OTHER |= {kind.__name__: kind for kind in KINDS}
build_attention = builder_with_defaults(OTHER, "transformer part")
BUILT = "feedforward_network transformer_layer transformer_layer_sequence transformer positional_encoding"
TABLE: dict[str, Any] = {f"build_{name}": build_attention for name in BUILT.split()}
