"""The parts of transformers as mmcv and MMSegmentation build them."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.compat.layers import (
    OTHER,
    build_activation_layer,
    build_conv_layer,
    build_dropout,
    build_from,
    build_norm_layer,
)
from terrazzo.compat.module import BaseModule, ModuleList, Sequential
from terrazzo.compat.ops import MultiScaleDeformableAttention
from terrazzo.compat.tools import to_2tuple
from terrazzo.models.layers.tokens import SinePositions


class FFN(BaseModule):
    """Linear layers with activations between them, added to the input with `add_identity`."""

    def __init__(
        self, embed_dims: int = 256, feedforward_channels: int = 1024, num_fcs: int = 2,
        act_cfg: Any = {"type": "ReLU", "inplace": True}, ffn_drop: float = 0.0,  # noqa: B006
        dropout_layer: Any = None, add_identity: bool = True, init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        ffn_drop = kwargs.get("dropout", ffn_drop)
        add_identity = kwargs.get("add_residual", add_identity)
        self.embed_dims, self.feedforward_channels, self.num_fcs = embed_dims, feedforward_channels, num_fcs
        self.activate = build_activation_layer(act_cfg)
        layers: list[nn.Module] = []
        width = embed_dims
        for _ in range(num_fcs - 1):
            layers.append(Sequential(nn.Linear(width, feedforward_channels), self.activate, nn.Dropout(ffn_drop)))
            width = feedforward_channels
        self.layers = Sequential(*layers, nn.Linear(width, embed_dims), nn.Dropout(ffn_drop))
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()
        self.add_identity = add_identity

    def forward(self, x: Tensor, identity: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        out = self.dropout_layer(self.layers(x))
        if not self.add_identity:
            return out
        identity = residual if identity is None else identity
        return (x if identity is None else identity) + out


class MultiheadAttention(BaseModule):
    """torch's multi-head attention with positions, added to the identity; (L, N, C) unless `batch_first`."""

    def __init__(
        self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0,
        dropout_layer: Any = {"type": "Dropout", "drop_prob": 0.0}, init_cfg: Any = None,  # noqa: B006
        batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        dropout_layer = dict(dropout_layer or {})
        if "dropout" in kwargs:
            attn_drop = kwargs.pop("dropout")
            dropout_layer["drop_prob"] = attn_drop
        self.embed_dims, self.num_heads, self.batch_first = embed_dims, num_heads, batch_first
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, attn_drop, **kwargs)
        self.proj_drop = nn.Dropout(proj_drop)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, identity: Tensor | None = None,
        query_pos: Tensor | None = None, key_pos: Tensor | None = None, attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None, **kwargs: Any,
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
        if self.batch_first:
            out = out.transpose(0, 1)
        return identity + self.dropout_layer(self.proj_drop(out))


class AdaptivePadding(nn.Module):
    """Zeros on the right and below ("corner"), or around ("same"), until the last window is whole."""

    def __init__(self, kernel_size: Any = 1, stride: Any = 1, dilation: Any = 1, padding: str = "corner") -> None:
        super().__init__()
        assert padding in ("same", "corner")
        self.kernel_size, self.stride, self.dilation = map(to_2tuple, (kernel_size, stride, dilation))
        self.padding = padding

    def get_pad_shape(self, input_shape: Any) -> tuple[int, int]:
        sizes = zip(input_shape, self.kernel_size, self.stride, self.dilation, strict=True)
        pads = [max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
        return pads[0], pads[1]

    def forward(self, x: Tensor) -> Tensor:
        below, right = self.get_pad_shape(x.shape[-2:])
        if not below and not right:
            return x
        if self.padding == "corner":
            return F.pad(x, [0, right, 0, below])
        return F.pad(x, [right // 2, right - right // 2, below // 2, below - below // 2])


class PatchEmbed(BaseModule):
    """Project each patch of an image to a token -> tokens (N, L, C) and their grid."""

    def __init__(
        self, in_channels: int = 3, embed_dims: int = 768, conv_type: str = "Conv2d", kernel_size: Any = 16,
        stride: Any = None, padding: Any = "corner", dilation: Any = 1, bias: bool = True, norm_cfg: Any = None,
        input_size: Any = None, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg=init_cfg)
        self.embed_dims = embed_dims
        kernel_size, dilation = to_2tuple(kernel_size), to_2tuple(dilation)
        stride = kernel_size if stride is None else to_2tuple(stride)
        self.adap_padding: Any = None
        if isinstance(padding, str):
            self.adap_padding = self.adaptive_padding = AdaptivePadding(kernel_size, stride, dilation, padding)
            padding = 0
        padding = to_2tuple(padding)
        self.projection = build_conv_layer(
            {"type": conv_type or "Conv2d"}, in_channels, embed_dims, kernel_size=kernel_size, stride=stride,
            padding=padding, dilation=dilation, bias=bias,
        )  # fmt: skip
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg is not None else None
        self.init_input_size = self.init_out_size = None
        if input_size:
            size = to_2tuple(input_size)
            if self.adap_padding:
                size = tuple(n + p for n, p in zip(size, self.adap_padding.get_pad_shape(size), strict=True))
            self.init_input_size = size
            sizes = zip(size, padding, dilation, kernel_size, stride, strict=True)
            self.init_out_size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.projection(self.adap_padding(x) if self.adap_padding else x)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        return (x if self.norm is None else self.norm(x)), grid


class PatchMerging(BaseModule):
    """Merge each window of tokens into one by a linear layer -> tokens and their grid (Liu et al., ICCV 2021)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any = 2, stride: Any = None, padding: Any = "corner",
        dilation: Any = 1, bias: bool = False, norm_cfg: Any = {"type": "LN"}, init_cfg: Any = None,  # noqa: B006
    ) -> None:  # fmt: skip
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.out_channels = in_channels, out_channels
        kernel_size, dilation = to_2tuple(kernel_size), to_2tuple(dilation)
        stride = to_2tuple(stride or kernel_size)
        self.adap_padding: Any = None
        if isinstance(padding, str):
            self.adap_padding = AdaptivePadding(kernel_size, stride, dilation, padding)
            padding = 0
        self.sampler = nn.Unfold(kernel_size, dilation, to_2tuple(padding), stride)
        width = kernel_size[0] * kernel_size[1] * in_channels
        self.norm = build_norm_layer(norm_cfg, width)[1] if norm_cfg is not None else None
        self.reduction = nn.Linear(width, out_channels, bias=bias)

    def forward(self, x: Tensor, input_size: Any) -> tuple[Tensor, tuple[int, int]]:
        x = x.transpose(1, 2).unflatten(2, tuple(input_size))
        x = self.adap_padding(x) if self.adap_padding else x
        s: Any = self.sampler
        sizes = zip(x.shape[2:], s.padding, s.dilation, s.kernel_size, s.stride, strict=True)
        grid = tuple((n + 2 * p - d * (k - 1) - 1) // t + 1 for n, p, d, k, t in sizes)
        x = s(x).transpose(1, 2)
        return self.reduction(x if self.norm is None else self.norm(x)), grid


class SinePositionalEncoding(BaseModule):
    """Sines and cosines of the positions that a mask (N, H, W) leaves visible -> (N, C, H, W)."""

    def __init__(
        self, num_feats: int, temperature: float = 10000, normalize: bool = False, scale: float = 2 * math.pi,
        eps: float = 1e-6, offset: float = 0.0, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        self.num_feats, self.normalize, self.offset = num_feats, normalize, offset
        self.positions = SinePositions(
            num_feats=num_feats, temperature=temperature, normalize=normalize, scale=scale, eps=eps, offset=offset
        )

    def forward(self, mask: Tensor) -> Tensor:
        if mask.any():
            warnings.warn("positions of a padded batch are those of the whole map")
        like = torch.zeros(1, 1, *mask.shape[-2:], device=mask.device)
        return self.positions(like).transpose(1, 2).unflatten(2, tuple(mask.shape[-2:])).expand(len(mask), -1, -1, -1)


class BaseTransformerLayer(BaseModule):
    """Attentions, feed-forward networks and norms in an order such as ("self_attn", "norm", "ffn", "norm")."""

    def __init__(
        self, attn_cfgs: Any = None,
        ffn_cfgs: Any = {"type": "FFN", "embed_dims": 256, "feedforward_channels": 1024},  # noqa: B006
        operation_order: Sequence[str] = (), norm_cfg: Any = {"type": "LN"},  # noqa: B006
        init_cfg: Any = None, batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        renamed = {"feedforward_channels": "feedforward_channels", "ffn_dropout": "ffn_drop", "ffn_num_fcs": "num_fcs"}
        ffn_cfgs = copy.deepcopy(ffn_cfgs)
        for old, new in renamed.items():
            if old in kwargs and isinstance(ffn_cfgs, dict):
                ffn_cfgs[new] = kwargs[old]
        self.batch_first, self.operation_order = batch_first, tuple(operation_order)
        self.pre_norm = self.operation_order[0] == "norm"
        kinds = [step for step in self.operation_order if step.endswith("attn")]
        attn_cfgs = attn_cfgs if isinstance(attn_cfgs, (list, tuple)) else [attn_cfgs] * len(kinds)
        self.num_attn = len(kinds)
        self.attentions = ModuleList()
        for kind, cfg in zip(kinds, attn_cfgs, strict=True):
            attention = build_attention({"batch_first": batch_first, **cfg})
            attention.operation_name = kind
            self.attentions.append(attention)
        self.embed_dims = self.attentions[0].embed_dims
        count = self.operation_order.count("ffn")
        cfgs = ffn_cfgs if isinstance(ffn_cfgs, (list, tuple)) else [ffn_cfgs] * count
        own = {"type": "FFN", "embed_dims": self.embed_dims}
        self.ffns = ModuleList([build_feedforward_network({**own, **cfg}) for cfg in cfgs])
        norms = range(self.operation_order.count("norm"))
        self.norms = ModuleList([build_norm_layer(norm_cfg, self.embed_dims)[1] for _ in norms])  # type: ignore[arg-type]

    def forward(
        self, query: Tensor, key: Any = None, value: Any = None, query_pos: Any = None, key_pos: Any = None,
        attn_masks: Any = None, query_key_padding_mask: Any = None, key_padding_mask: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        attentions, norms, ffns = iter(self.attentions), iter(self.norms), iter(self.ffns)
        masks = iter(attn_masks if isinstance(attn_masks, (list, tuple)) else [attn_masks] * self.num_attn)
        identity = query
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


class TransformerLayerSequence(BaseModule):
    """Layers of a transformer, one after the other."""

    def __init__(self, transformerlayers: Any = None, num_layers: Any = None, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        specs = transformerlayers
        if not isinstance(specs, (list, tuple)):
            specs = [copy.deepcopy(transformerlayers) for _ in range(num_layers)]
        self.num_layers = num_layers
        self.layers = ModuleList([build_transformer_layer(spec) for spec in specs])
        self.embed_dims = getattr(self.layers[0], "embed_dims", None)
        self.pre_norm = getattr(self.layers[0], "pre_norm", None)

    def forward(self, query: Tensor, key: Any, value: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            query = layer(query, key, value, **kwargs)
        return query


PARTS: dict[str, Any] = {
    cls.__name__: cls
    for cls in (FFN, MultiheadAttention, MultiScaleDeformableAttention, BaseTransformerLayer, TransformerLayerSequence,
                SinePositionalEncoding)
}  # fmt: skip
OTHER |= PARTS
build_attention = build_from(PARTS, "attention")
build_feedforward_network = build_from(PARTS | {"": FFN}, "feed-forward network")
build_transformer_layer = build_from(PARTS, "transformer layer")
build_transformer_layer_sequence = build_from(PARTS, "transformer layer sequence")
build_transformer = build_transformer_layer_sequence
build_positional_encoding = build_from(PARTS, "positional encoding")
