"""Inner blocks of official backbones and heads, by their names and arguments there."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.blocks import Part, part
from terrazzo.compat.faces import OFFICIAL, face
from terrazzo.compat.layers import build_activation_layer, build_dropout, build_norm_layer
from terrazzo.compat.module import BaseModule
from terrazzo.compat.transformer import MultiheadAttention
from terrazzo.models.backbones import bisenet_v1, bisenet_v2, cgnet, erfnet, mscan, stdc, twins, unet
from terrazzo.models.heads import cc, ham, psa
from terrazzo.models.layers import context_block
from terrazzo.models.layers.tokens import as_map, as_tokens
from terrazzo.models.necks import ic_neck

GELU: dict[str, Any] = {"type": "GELU"}
SYNC: dict[str, Any] = {"type": "SyncBN", "requires_grad": True}
KERNELS, PADDINGS = [5, [1, 7], [1, 11], [1, 21]], [2, [0, 3], [0, 5], [0, 10]]

# SegNeXt's
MSCAAttention = part(mscan.SpatialGate, "channels kernel_sizes paddings", kernel_sizes=KERNELS, paddings=PADDINGS)
MSCASpatialAttention = part(
    mscan.SpatialAttention,
    "in_channels attention_kernel_sizes attention_kernel_paddings act_cfg",
    {"in_channels": "channels", "attention_kernel_sizes": "kernel_sizes", "attention_kernel_paddings": "paddings"},
    attention_kernel_sizes=KERNELS, attention_kernel_paddings=PADDINGS, act_cfg=GELU,
)  # fmt: skip


class Mlp(BaseModule):
    """1x1, depthwise 3x3, activation, 1x1 of a map."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_cfg: Any = GELU, drop: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = hidden_features or in_features
        made = mscan.ConvFeedForward(in_features, hidden, act_cfg=act_cfg, drop=drop)
        for name, child in made.named_children():
            self.add_module(name, child)
        if out_features not in (None, in_features):
            self.fc2 = nn.Conv2d(hidden, out_features, 1)

    forward = mscan.ConvFeedForward.forward


class MSCABlock(Part, mscan.ScaledBlock):
    """SegNeXt's block; (N, h * w, C) and the grid, or a map."""

    def __init__(
        self, channels: int, attention_kernel_sizes: Any = KERNELS, attention_kernel_paddings: Any = PADDINGS,
        mlp_ratio: float = 4.0, drop: float = 0.0, drop_path: float = 0.0, act_cfg: Any = GELU, norm_cfg: Any = SYNC,
    ) -> None:  # fmt: skip
        mscan.ScaledBlock.__init__(
            self, channels, MSCASpatialAttention(channels, attention_kernel_sizes, attention_kernel_paddings, act_cfg),
            Mlp(channels, int(channels * mlp_ratio), act_cfg=act_cfg, drop=drop), norm_cfg=norm_cfg,
            drop_path_rate=drop_path, scale=1e-2,
        )  # fmt: skip
        vars(self).update(_is_init=False, init_cfg=None)

    def forward(self, x: Tensor, H: int | None = None, W: int | None = None) -> Tensor:
        if H is None or W is None:
            return super().forward(x)
        return as_tokens(super().forward(as_map(x, (H, W))))


class StemConv(BaseModule):
    """Two strided convolutions -> tokens and their grid."""

    def __init__(self, in_channels: int, out_channels: int, act_cfg: Any = GELU, norm_cfg: Any = SYNC) -> None:
        super().__init__()
        self.proj: Any = mscan.stem(in_channels, out_channels, act_cfg=act_cfg, norm_cfg=norm_cfg).proj

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return as_tokens(x), x.shape[2], x.shape[3]


class OverlapPatchEmbed(StemConv):
    """A strided convolution whose windows overlap -> tokens and their grid."""

    def __init__(
        self, patch_size: int = 7, stride: int = 4, in_channels: int = 3, embed_dim: int = 768, norm_cfg: Any = SYNC
    ) -> None:
        BaseModule.__init__(self)
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride, patch_size // 2)
        self.norm: Any = build_norm_layer(norm_cfg, embed_dim)[1]

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.norm(self.proj(x))
        return as_tokens(x), *x.shape[2:]


class MSCAN(face(mscan.MSCAN)):  # type: ignore[misc]
    """MSCAN, whose embeddings and blocks may be a user's, of tokens and their grid."""

    def forward(self, x: Tensor) -> Any:
        if type(self.patch_embed1) is nn.Sequential:  # terrazzo's own
            return super().forward(x)
        outs = []
        for stage in range(1, self.num_stages + 1):
            x, height, width = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                x = block(x, height, width)
            x = as_map(getattr(self, f"norm{stage}")(x), (height, width))
            outs.append(x)
        return outs


OFFICIAL["MSCAN"] = MSCAN


class Hamburger(Part, ham.Hamburger):
    """Matrix factorisation of a map between two convolutions."""

    order, renamed = "ham_channels ham_kwargs norm_cfg", {"ham_channels": "channels"}
    defaults = {"ham_channels": 512, "ham_kwargs": {}, "norm_cfg": None}  # noqa: RUF012


# SegFormer's
class MixFFN(BaseModule):
    """Feed-forward network of tokens with a depthwise convolution over their grid."""

    def __init__(
        self, embed_dims: int, feedforward_channels: int, act_cfg: Any = GELU, ffn_drop: float = 0.0,
        dropout_layer: Any = None, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        hidden = feedforward_channels
        self.layers = nn.Sequential(
            nn.Conv2d(embed_dims, hidden, 1), nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            build_activation_layer(act_cfg), nn.Dropout(ffn_drop), nn.Conv2d(hidden, embed_dims, 1),
            nn.Dropout(ffn_drop),
        )  # fmt: skip
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(self, x: Tensor, hw_shape: Any, identity: Tensor | None = None) -> Tensor:
        out = self.dropout_layer(as_tokens(self.layers(as_map(x, hw_shape))))
        return (x if identity is None else identity) + out


class EfficientMultiheadAttention(MultiheadAttention):
    """Attention whose keys are a smaller map, 1 / `sr_ratio` of the grid."""

    def __init__(
        self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0,
        dropout_layer: Any = None, init_cfg: Any = None, batch_first: bool = True, qkv_bias: bool = False,
        norm_cfg: Any = {"type": "LN"}, sr_ratio: int = 1,  # noqa: B006
    ) -> None:  # fmt: skip
        super().__init__(
            embed_dims, num_heads, attn_drop, proj_drop, dropout_layer, init_cfg, batch_first, bias=qkv_bias
        )
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(embed_dims, embed_dims, sr_ratio, sr_ratio)
            self.norm = build_norm_layer(norm_cfg, embed_dims)[1]

    def forward(self, x: Tensor, hw_shape: Any, identity: Tensor | None = None) -> Tensor:  # type: ignore[override]
        keys = x if self.sr_ratio == 1 else self.norm(as_tokens(self.sr(as_map(x, hw_shape))))
        return super().forward(x, keys, keys, x if identity is None else identity)


# Context
NonLocal2d = part(
    context_block.NonLocal, "in_channels reduction use_scale conv_cfg norm_cfg mode", {"in_channels": "channels"}
)
ContextBlock = part(
    context_block.ContextBlock, "in_channels ratio pooling_type fusion_types", {"in_channels": "channels"}
)
CrissCrossAttention = part(cc.CrissCrossAttention, "in_channels", {"in_channels": "channels"})
CascadeFeatureFusion = part(
    ic_neck.CascadeFeatureFusion,
    "low_channels high_channels out_channels conv_cfg norm_cfg act_cfg align_corners",
    conv_cfg=None, norm_cfg={"type": "BN"}, act_cfg={"type": "ReLU"}, align_corners=False,
)  # fmt: skip


# Parts of small networks: (theirs, ours, arguments in their order, those under other names here, defaults)
BN: dict[str, Any] = {"type": "BN"}
RELU: dict[str, Any] = {"type": "ReLU"}
STYLE: dict[str, Any] = {"conv_cfg": None, "norm_cfg": BN, "act_cfg": RELU}
ORDER = "in_channels out_channels conv_cfg norm_cfg act_cfg"
AttentionRefinementModule = part(
    bisenet_v1.AttentionRefinement, "in_channels out_channel conv_cfg norm_cfg act_cfg",
    {"out_channel": "out_channels"}, **STYLE,
)  # fmt: skip
FeatureFusionModule = part(bisenet_v1.FeatureFusion, "in_channels out_channels conv_cfg norm_cfg act_cfg", **STYLE)
SpatialPath = part(
    bisenet_v1.SpatialPath, "in_channels num_channels conv_cfg norm_cfg act_cfg", {"num_channels": "widths"},
    in_channels=3, num_channels=(64, 64, 64, 128), **STYLE,
)  # fmt: skip
ContextPath = part(
    bisenet_v1.ContextPath, "backbone_cfg context_channels align_corners conv_cfg norm_cfg act_cfg",
    {"context_channels": "channels"}, context_channels=(128, 256, 512), **STYLE,
)  # fmt: skip
DetailBranch = part(
    bisenet_v2.DetailBranch, "detail_channels in_channels conv_cfg norm_cfg act_cfg", {"detail_channels": "widths"},
    detail_channels=(64, 64, 128), in_channels=3, **STYLE,
)  # fmt: skip
SemanticBranch = part(
    bisenet_v2.SemanticBranch, "semantic_channels in_channels exp_ratio",
    {"semantic_channels": "widths", "exp_ratio": "expansion"},
    semantic_channels=(16, 32, 64, 128), in_channels=3, exp_ratio=6, **STYLE,
)  # fmt: skip
BGALayer = part(
    bisenet_v2.BilateralGuidedAggregation, "out_channels align_corners conv_cfg norm_cfg act_cfg",
    {"out_channels": "channels"}, out_channels=128, align_corners=False, **STYLE,
)  # fmt: skip
ContextGuidedBlock = part(
    cgnet.ContextGuidedBlock,
    "in_channels out_channels dilation reduction skip_connect downsample conv_cfg norm_cfg act_cfg with_cp",
    dilation=2, reduction=16, downsample=False, conv_cfg=None, norm_cfg=BN, act_cfg={"type": "PReLU"}, with_cp=False,
)  # fmt: skip
GlobalContextExtractor = part(
    cgnet.GlobalContext, "channel reduction with_cp", {"channel": "channels"}, reduction=16, with_cp=False
)
DownsamplerBlock = part(erfnet.Downsampler, ORDER, conv_cfg=None, norm_cfg={**BN, "eps": 1e-3}, act_cfg=RELU)
UpsamplerBlock = part(erfnet.Upsampler, ORDER, norm_cfg={**BN, "eps": 1e-3}, act_cfg=RELU)
NonBottleneck1d = part(
    erfnet.NonBottleneck1d, "channels drop_rate dilation num_conv_layer conv_cfg norm_cfg act_cfg",
    {"drop_rate": "dropout_ratio"}, drop_rate=0.0, dilation=1, conv_cfg=None, norm_cfg=BN, act_cfg=RELU,
)  # fmt: skip
STDCModule = part(
    stdc.STDCModule, "in_channels out_channels stride norm_cfg act_cfg num_convs fusion_type",
    norm_cfg=None, act_cfg=None, num_convs=4, fusion_type="add",
)  # fmt: skip
ConditionalPositionEncoding = part(twins.PositionEncoding, "in_channels embed_dims stride", {"embed_dims": "channels"})
BasicConvBlock = part(
    unet.ConvStage, "in_channels out_channels num_convs stride dilation with_cp conv_cfg norm_cfg act_cfg",
    {"out_channels": "channels", "num_convs": "count"}, num_convs=2, stride=1, dilation=1, with_cp=False, **STYLE,
)  # fmt: skip
InterpConv = part(
    unet.InterpConv,
    "in_channels out_channels with_cp norm_cfg act_cfg conv_cfg conv_first kernel_size stride padding upsample_cfg",
    **STYLE,
)
DeconvModule = part(unet.DeconvModule, "in_channels out_channels with_cp norm_cfg act_cfg kernel_size scale_factor",
                    norm_cfg=BN, act_cfg=RELU)  # fmt: skip


class PSAMask(nn.Module):
    """Masks over relative offsets (N, mask height * mask width, H, W) as masks over positions (N, H * W, H, W)."""

    def __init__(self, psa_type: str, mask_size: Any = None) -> None:
        super().__init__()
        assert psa_type in ("collect", "distribute")
        self.psa_type, self.mask_size = psa_type, mask_size

    def forward(self, input: Tensor) -> Tensor:
        masks = psa.absolute_masks(input, self.mask_size)
        if self.psa_type == "collect":
            return masks
        size = masks.shape[2:]
        return masks.flatten(2).transpose(1, 2).unflatten(2, size)


class MLP(nn.Module):
    """Linear layers with ReLU between them; 0.x SegFormer's, of (input_dim, embed_dim), is one layer of tokens."""

    def __init__(
        self, input_dim: int = 2048, hidden_dim: int | None = None, output_dim: int | None = None,
        num_layers: int | None = None, embed_dim: int = 768,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_layers is None:
            self.proj = nn.Linear(input_dim, hidden_dim or embed_dim)
        else:
            widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "proj"):
            return self.proj(x.flatten(2).transpose(1, 2))
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


# Segment Anything's windows
def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """A map (N, H, W, C) as windows (N * windows, size, size, C), and its padded size."""
    height, width = x.shape[1:3]
    below, right = (-height % window_size), (-width % window_size)
    x = nn.functional.pad(x, (0, 0, 0, right, 0, below))
    padded = x.shape[1], x.shape[2]
    x = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))  # N, rows, size, columns, size, C
    return x.transpose(2, 3).flatten(0, 2), padded


def window_unpartition(windows: Tensor, window_size: int, pad_hw: Any, hw: Any) -> Tensor:
    """The inverse of `window_partition`."""
    rows, columns = pad_hw[0] // window_size, pad_hw[1] // window_size
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : hw[0], : hw[1]]


def nchw2nlc2nchw(module: nn.Module, x: Tensor, contiguous: bool = False, **kwargs: Any) -> Tensor:
    """A module of tokens, applied to a map."""
    tokens = as_tokens(x)
    made = as_map(module(tokens.contiguous() if contiguous else tokens, **kwargs), (x.shape[2], x.shape[3]))
    return made.contiguous() if contiguous else made


def nlc2nchw2nlc(module: nn.Module, x: Tensor, hw_shape: Any, contiguous: bool = False, **kwargs: Any) -> Tensor:
    """A module of a map, applied to tokens of a grid."""
    made = as_map(x, hw_shape)
    tokens = as_tokens(module(made.contiguous() if contiguous else made, **kwargs))
    return tokens.contiguous() if contiguous else tokens


def resize_pos_embed(
    pos_embed: Tensor, src_shape: Any, dst_shape: Any, mode: str = "bicubic", num_extra_tokens: int = 1
) -> Tensor:
    """Position embeddings (1, extra + h * w, C) of a grid at the size of another."""
    if tuple(src_shape) == tuple(dst_shape):
        return pos_embed
    extra, grid = pos_embed[:, :num_extra_tokens], as_map(pos_embed[:, num_extra_tokens:], src_shape)
    resized = nn.functional.interpolate(grid, tuple(dst_shape), mode=mode, align_corners=False)
    return torch.cat([extra, as_tokens(resized)], dim=1)
