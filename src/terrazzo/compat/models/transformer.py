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

from terrazzo.compat.engine.tools import to_2tuple
from terrazzo.compat.models import layers
from terrazzo.compat.models.layers import OTHER, build_dropout, build_norm_layer, builder
from terrazzo.compat.models.module import BaseModule, ModuleList, Sequential
from terrazzo.compat.models.ops import MultiScaleDeformableAttention
from terrazzo.models.layers import tokens

RELU: Any = {"type": "ReLU", "inplace": True}
LN: Any = {"type": "LN"}
DROPOUT: Any = {"type": "Dropout", "drop_prob": 0.0}


class FFN(BaseModule):
    """Linear layers with activations between them, added to the input with `add_identity`."""

    def __init__(
        self, embed_dims: int = 256, feedforward_channels: int = 1024, num_fcs: int = 2, act_cfg: Any = RELU,
        ffn_drop: float = 0.0, dropout_layer: Any = None, add_identity: bool = True, init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        ffn_drop = kwargs.get("dropout", ffn_drop)
        self.embed_dims, self.feedforward_channels, self.num_fcs = embed_dims, feedforward_channels, num_fcs
        self.activate, self.add_identity = (
            layers.build_activation_layer(act_cfg),
            kwargs.get("add_residual", add_identity),
        )
        widths = [embed_dims, *[feedforward_channels] * (num_fcs - 1)]
        hidden = [Sequential(nn.Linear(width, feedforward_channels), self.activate, nn.Dropout(ffn_drop))
                  for width in widths[:-1]]  # fmt: skip
        self.layers = Sequential(*hidden, nn.Linear(widths[-1], embed_dims), nn.Dropout(ffn_drop))
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(self, x: Tensor, identity: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        out = self.dropout_layer(self.layers(x))
        if not self.add_identity:
            return out
        return next(item for item in (identity, residual, x) if item is not None) + out


class MultiheadAttention(BaseModule):
    """torch's multi-head attention with positions, added to the identity; (L, N, C) unless `batch_first`."""

    def __init__(
        self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0,
        dropout_layer: Any = DROPOUT, init_cfg: Any = None,
        batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        dropout_layer = dict(dropout_layer or {})
        if "dropout" in kwargs:
            attn_drop = dropout_layer["drop_prob"] = kwargs.pop("dropout")
        self.embed_dims, self.num_heads, self.batch_first = embed_dims, num_heads, batch_first
        self.attn, self.proj_drop = (
            nn.MultiheadAttention(embed_dims, num_heads, attn_drop, **kwargs),
            nn.Dropout(proj_drop),
        )
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


class AdaptivePadding(nn.Module):
    """Zeros on the right and below ("corner"), or around ("same"), until the last window is whole."""

    def __init__(self, kernel_size: Any = 1, stride: Any = 1, dilation: Any = 1, padding: str = "corner") -> None:
        super().__init__()
        assert padding in ("same", "corner")
        self.kernel_size, self.stride, self.dilation = map(to_2tuple, (kernel_size, stride, dilation))
        self.padding = padding

    def get_pad_shape(self, input_shape: Any) -> tuple[int, ...]:
        sizes = zip(input_shape, self.kernel_size, self.stride, self.dilation, strict=True)
        return tuple(max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes)

    def forward(self, x: Tensor) -> Tensor:
        below, right = self.get_pad_shape(x.shape[-2:])
        left, above = (right // 2, below // 2) if self.padding == "same" else (0, 0)
        return F.pad(x, [left, right - left, above, below - above]) if below or right else x


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
        adaptive = isinstance(padding, str)
        self.adap_padding = AdaptivePadding(kernel_size, stride or kernel_size, dilation, padding) if adaptive else None
        self.init_input_size = self.init_out_size = None
        if input_size:
            image = torch.zeros(1, in_channels, *to_2tuple(input_size))
            image = self.adap_padding(image) if self.adap_padding else image
            self.init_input_size, self.init_out_size = tuple(image.shape[2:]), tuple(self.projection(image).shape[2:])


class PatchMerging(BaseModule):
    """Merge each window of tokens into one by a linear layer -> tokens and their grid (Liu et al., ICCV 2021)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any = 2, stride: Any = None, padding: Any = "corner",
        dilation: Any = 1, bias: bool = False, norm_cfg: Any = LN, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.out_channels, adaptive = in_channels, out_channels, isinstance(padding, str)
        kernel_size, dilation, stride = map(to_2tuple, (kernel_size, dilation, stride or kernel_size))
        self.adap_padding = AdaptivePadding(kernel_size, stride, dilation, padding) if adaptive else None
        self.sampler: Any = nn.Unfold(kernel_size, dilation, to_2tuple(0 if adaptive else padding), stride)
        width = kernel_size[0] * kernel_size[1] * in_channels
        self.norm = build_norm_layer(norm_cfg, width)[1] if norm_cfg is not None else None
        self.reduction = nn.Linear(width, out_channels, bias=bias)

    def forward(self, x: Tensor, input_size: Any) -> tuple[Tensor, tuple[int, ...]]:
        x = x.transpose(1, 2).unflatten(2, tuple(input_size))
        x, sampler = self.adap_padding(x) if self.adap_padding else x, self.sampler
        facts = zip(x.shape[2:], sampler.kernel_size, sampler.stride, sampler.padding, sampler.dilation, strict=True)
        grid = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in facts)
        x = sampler(x).transpose(1, 2)
        return self.reduction(x if self.norm is None else self.norm(x)), grid


class SinePositionalEncoding(BaseModule):
    """Sines and cosines of the positions that a mask (N, H, W) leaves visible -> (N, C, H, W)."""

    def __init__(self, num_feats: int, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(init_cfg)
        kwargs |= dict(zip(("temperature", "normalize", "scale", "eps", "offset"), args, strict=False))
        self.num_feats, self.positions = num_feats, tokens.SinePositions(num_feats=num_feats, **kwargs)

    def forward(self, mask: Tensor) -> Tensor:
        if mask.any():
            warnings.warn("positions of a padded batch are those of the whole map")
        like = torch.zeros(1, 1, *mask.shape[-2:], device=mask.device)
        return self.positions(like).transpose(1, 2).unflatten(2, tuple(mask.shape[-2:])).expand(len(mask), -1, -1, -1)


class BaseTransformerLayer(BaseModule):
    """Attentions, feed-forward networks and norms in an order such as ("self_attn", "norm", "ffn", "norm")."""

    def __init__(
        self, attn_cfgs: Any = None, ffn_cfgs: Any = None, operation_order: Sequence[str] = (), norm_cfg: Any = LN,
        init_cfg: Any = None, batch_first: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        ffn_cfgs = copy.deepcopy(ffn_cfgs or {"type": "FFN"})
        renamed = {"feedforward_channels": "feedforward_channels", "ffn_dropout": "ffn_drop", "ffn_num_fcs": "num_fcs"}
        if isinstance(ffn_cfgs, dict):
            ffn_cfgs.update({new: kwargs[old] for old, new in renamed.items() if old in kwargs})
        self.batch_first, self.operation_order = batch_first, tuple(operation_order)
        self.pre_norm = self.operation_order[0] == "norm"
        kinds = [step for step in self.operation_order if step.endswith("attn")]
        listed = attn_cfgs if isinstance(attn_cfgs, (list, tuple)) else [attn_cfgs] * len(kinds)
        self.num_attn, self.attentions = len(kinds), ModuleList()
        for kind, cfg in zip(kinds, listed, strict=True):
            self.attentions.append(build_attention({"batch_first": batch_first, **cfg}))
            self.attentions[-1].operation_name = kind
        self.embed_dims = self.attentions[0].embed_dims
        listed = ffn_cfgs if isinstance(ffn_cfgs, (list, tuple)) else [ffn_cfgs] * self.operation_order.count("ffn")
        own = {"type": "FFN", "embed_dims": self.embed_dims}
        self.ffns = ModuleList([build_feedforward_network({**own, **cfg}) for cfg in listed])
        count = self.operation_order.count("norm")
        self.norms = ModuleList([build_norm_layer(norm_cfg, self.embed_dims)[1] for _ in range(count)])

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
        several = isinstance(transformerlayers, (list, tuple))
        specs = transformerlayers if several else [copy.deepcopy(transformerlayers) for _ in range(num_layers)]
        self.num_layers, self.layers = num_layers, ModuleList([build_transformer_layer(spec) for spec in specs])
        self.embed_dims, self.pre_norm = (getattr(self.layers[0], key, None) for key in ("embed_dims", "pre_norm"))

    def forward(self, query: Tensor, key: Any, value: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            query = layer(query, key, value, **kwargs)
        return query


KINDS = (FFN, MultiheadAttention, MultiScaleDeformableAttention, BaseTransformerLayer, TransformerLayerSequence,
         SinePositionalEncoding)  # fmt: skip
PARTS: dict[str, Any] = {kind.__name__: kind for kind in KINDS}
OTHER |= PARTS
build_attention, build_feedforward_network = builder(PARTS, "attention"), builder(PARTS, "feed-forward network")
build_transformer_layer = builder(PARTS, "transformer layer")
build_transformer_layer_sequence = build_transformer = builder(PARTS, "transformer layer sequence")
build_positional_encoding = builder(PARTS, "positional encoding")
