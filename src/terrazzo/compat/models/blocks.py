"""Parts of official models that modules import one by one, under their names and with their arguments there."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.models import layers
from terrazzo.compat.models.faces import OFFICIAL, face
from terrazzo.compat.models.layers import ConvModule, build_norm_layer, resize
from terrazzo.compat.models.module import BaseModule, Sequential
from terrazzo.compat.models.transformer import LN, MultiheadAttention
from terrazzo.compat.registry import MODELS
from terrazzo.models.backbones import mscan
from terrazzo.models.heads import enc
from terrazzo.models.layers import self_attention
from terrazzo.models.layers.tokens import as_map, as_tokens, resize_position_embedding

BN: Any = {"type": "BN"}
RELU: Any = {"type": "ReLU"}
GELU: Any = {"type": "GELU"}
SYNC: Any = {"type": "SyncBN", "requires_grad": True}
KERNELS, PADDINGS = [5, [1, 7], [1, 11], [1, 21]], [2, [0, 3], [0, 5], [0, 10]]
STYLE: dict[str, Any] = {"conv_cfg": None, "norm_cfg": BN, "act_cfg": RELU, "with_cp": False}  # where nothing is given


def _norm(index: int) -> dict[str, Any]:
    """`norm1`, ... as modules, and their names, of a block that has its norms in a list."""
    module, name = property(lambda self: getattr(self, self.norms[index])), property(lambda self: self.norms[index])
    return {f"norm{index + 1}": module, f"norm{index + 1}_name": name}


NORMS = _norm(0) | _norm(1) | _norm(2)
# a part there -> ours, and its arguments there in their order: `theirs`, `theirs>ours`, `theirs=default`
PARTS = """
BasicBlock backbones.resnet:BasicBlock BLOCK
Bottleneck backbones.resnet:Bottleneck BLOCK
InvertedResidual backbones.mobilenet_v2:InvertedResidual WIDTHS stride expand_ratio dilation RELU6
SELayer backbones.mobilenet_v3:SqueezeExcitation channels ratio=16 conv_cfg
TransformerEncoderLayer layers.transformer:TransformerEncoderLayer ENCODER
MSCAAttention backbones.mscan:SpatialGate channels kernel_sizes=KERNELS paddings=PADDINGS
MSCASpatialAttention backbones.mscan:SpatialAttention SPATIAL act_cfg={"type":"GELU"}
Hamburger heads.ham:Hamburger ham_channels>channels=512 ham_kwargs={} norm_cfg=None
NonLocal2d layers.context_block:NonLocal in_channels>channels reduction use_scale conv_cfg norm_cfg=None mode
ContextBlock layers.context_block:ContextBlock in_channels>channels ratio pooling_type fusion_types
CrissCrossAttention heads.cc:CrissCrossAttention in_channels>channels
CascadeFeatureFusion necks.ic_neck:CascadeFeatureFusion low_channels high_channels out_channels CFGS align_corners=False
AttentionRefinementModule backbones.bisenet_v1:AttentionRefinement in_channels out_channel>out_channels CFGS
FeatureFusionModule backbones.bisenet_v1:FeatureFusion WIDTHS CFGS
SpatialPath backbones.bisenet_v1:SpatialPath in_channels=3 num_channels>widths=(64,64,64,128) CFGS
ContextPath backbones.bisenet_v1:ContextPath backbone_cfg context_channels>channels=(128,256,512) align_corners CFGS
DetailBranch backbones.bisenet_v2:DetailBranch detail_channels>widths=(64,64,128) in_channels=3 CFGS
SemanticBranch backbones.bisenet_v2:SemanticBranch SEMANTIC
BGALayer backbones.bisenet_v2:BilateralGuidedAggregation out_channels>channels=128 align_corners=False CFGS
ContextGuidedBlock backbones.cgnet:ContextGuidedBlock WIDTHS dilation=2 reduction=16 skip_connect downsample=False PRELU
GlobalContextExtractor backbones.cgnet:GlobalContext channel>channels reduction=16 with_cp
DownsamplerBlock backbones.erfnet:Downsampler WIDTHS conv_cfg norm_cfg={"type":"BN","eps":1e-3} act_cfg
UpsamplerBlock backbones.erfnet:Upsampler WIDTHS conv_cfg norm_cfg={"type":"BN","eps":1e-3} act_cfg
NonBottleneck1d backbones.erfnet:NonBottleneck1d channels drop_rate>dropout_ratio=0.0 dilation=1 num_conv_layer CFGS
STDCModule backbones.stdc:STDCModule WIDTHS stride norm_cfg=None act_cfg=None num_convs=4 fusion_type="add"
ConditionalPositionEncoding backbones.twins:PositionEncoding in_channels embed_dims>channels stride
BasicConvBlock backbones.unet:ConvStage STAGE CFGS
InterpConv backbones.unet:InterpConv WIDTHS with_cp norm_cfg act_cfg conv_cfg conv_first kernel_size stride padding
DeconvModule backbones.unet:DeconvModule WIDTHS with_cp norm_cfg act_cfg kernel_size scale_factor
Encoding heads.enc:Encoding channels num_codes
"""
WORDS = {
    "BLOCK": "inplanes>in_channels planes>channels stride dilation downsample style with_cp conv_cfg norm_cfg dcn "
    "plugins",
    "ENCODER": "embed_dims num_heads feedforward_channels drop_rate attn_drop_rate drop_path_rate num_fcs "
    'qkv_bias act_cfg={"type":"GELU"} norm_cfg={"type":"LN"}',
    "SPATIAL": "in_channels>channels attention_kernel_sizes>kernel_sizes=KERNELS "
    "attention_kernel_paddings>paddings=PADDINGS",
    "CFGS": "conv_cfg norm_cfg act_cfg",
    "RELU6": 'conv_cfg norm_cfg act_cfg={"type":"ReLU6"}',
    "PRELU": 'conv_cfg norm_cfg act_cfg={"type":"PReLU"} with_cp',
    "STAGE": "in_channels out_channels>channels num_convs>count=2 stride=1 dilation=1 with_cp",
    "SEMANTIC": "semantic_channels>widths=(16,32,64,128) in_channels=3 exp_ratio>expansion=6 conv_cfg norm_cfg act_cfg",
    "WIDTHS": "in_channels out_channels",
    "KERNELS": str(KERNELS).replace(" ", ""),
    "PADDINGS": str(PADDINGS).replace(" ", ""),
}
BODIES: dict[str, dict[str, Any]] = {
    "BasicBlock": NORMS,
    "Bottleneck": NORMS,
    "TransformerEncoderLayer": {"norm1": property(lambda self: self.ln1), "norm2": property(lambda self: self.ln2)},
    "Encoding": {"forward": lambda self, x: enc.Encoding.forward(self, x).squeeze(3)},
}


class Part(BaseModule):
    """The constructor of a part of ours as it is called there: arguments in another order, some under other names."""

    names: dict[str, str]  # theirs, in their order -> ours
    defaults: dict[str, Any]

    def __init__(self, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        given = {**STYLE, **self.defaults, **dict(zip(self.names, args, strict=False)), **kwargs}
        takes = inspect.signature(super(BaseModule, self).__init__).parameters
        further = any(item.kind is item.VAR_KEYWORD for item in takes.values())  # handed on to blocks inside
        known = {*takes, *((*self.names.values(), *kwargs) if further else ())}
        if unknown := {self.names.get(key, key) for key in kwargs} - known - {*self.names}:
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        options = {self.names.get(key, key): value for key, value in given.items()}
        needed = {key for key, parameter in takes.items() if parameter.default is parameter.empty}
        chosen = {key: value for key, value in options.items() if key in known and (value is not None or key in needed)}
        super(BaseModule, self).__init__(**chosen)
        vars(self).update(_is_init=False, init_cfg=init_cfg)
        for key, value in given.items():
            if not hasattr(self, key):
                setattr(self, key, value)
        layers.show_as_theirs(self)


def _part(name: str, path: str, order: str) -> Any:
    """A class of terrazzo.models under its name there, called with its arguments there."""
    ours, names, defaults = pkgutil.resolve_name(f"terrazzo.models.{path}"), dict[str, str](), dict[str, Any]()
    for argument in order.split():
        theirs, _, default = argument.partition("=")
        key = theirs.partition(">")[0]
        names[key] = theirs.rpartition(">")[2]
        if default:
            defaults[key] = ast.literal_eval(default)
    facts = {"names": names, "defaults": defaults, "__module__": __name__, "__doc__": ours.__doc__}
    return type(name, (Part, ours), facts | BODIES.get(name, {}))


def _parts() -> Iterator[tuple[str, Any]]:
    for line in PARTS.strip().splitlines():
        name, path, order = line.split(maxsplit=2)
        for _ in range(2):  # a word may have others in it
            order = re.sub("|".join(WORDS), lambda word: WORDS[word.group()], order)
        yield name, _part(name, path, order)


TABLE: dict[str, Any] = {**dict(_parts()), "BaseBackbone": BaseModule}
layers.OTHER.update(TABLE)  # which configs of layers inside blocks name


class PPM(nn.ModuleList):
    """A pooling pyramid: the list of contexts of a map, at its size."""

    def __init__(self, pool_scales: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any,
                 align_corners: bool, **kwargs: Any) -> None:  # fmt: skip
        conv = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg, **kwargs}
        super().__init__(nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvModule(in_channels, channels, 1, **conv))
                         for scale in pool_scales)  # fmt: skip
        self.pool_scales, self.align_corners = pool_scales, align_corners

    def forward(self, x: Tensor) -> list[Tensor]:
        return [resize(pool(x), x.shape[2:], None, "bilinear", self.align_corners) for pool in self]


class ASPPModule(nn.ModuleList):
    """Parallel convolutions of a map with different dilations: the list of their outputs."""

    conv: Any = ConvModule

    def __init__(self, dilations: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any,
                 act_cfg: Any) -> None:  # fmt: skip
        super().__init__()
        vars(self).update(dilations=dilations, in_channels=in_channels, channels=channels, conv_cfg=conv_cfg)
        for rate in dilations:
            kind, size = (ConvModule, 1) if rate == 1 else (self.conv, 3)
            options = {"dilation": rate, "padding": rate if size == 3 else 0, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
            own = {"conv_cfg": conv_cfg} if kind is ConvModule else {}
            self.append(kind(in_channels, channels, size, **options, **own))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self]


class DepthwiseSeparableASPPModule(ASPPModule):
    """ASPPModule of separable convolutions."""

    conv = layers.DepthwiseSeparableConvModule


class ResLayer(Sequential):
    """Blocks one after the other, the first with the stride and, where sizes differ, a projected shortcut."""

    def __init__(
        self, block: Any, inplanes: int, planes: int, num_blocks: int, stride: int = 1, dilation: int = 1,
        avg_down: bool = False, conv_cfg: Any = None, norm_cfg: Any = BN, multi_grid: Any = None,
        contract_dilation: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.block, width, downsample = block, planes * block.expansion, None
        if stride != 1 or inplanes != width:
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if avg_down else []
            conv = layers.build_conv_layer(conv_cfg, inplanes, width, 1, stride=1 if avg_down else stride, bias=False)
            downsample = nn.Sequential(*pool, conv, build_norm_layer(norm_cfg, width)[1])
        rates = [dilation] * num_blocks if multi_grid is None else [dilation * rate for rate in multi_grid]
        if multi_grid is None and dilation > 1 and contract_dilation:
            rates[0] = dilation // 2
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, **kwargs}
        blocks = [block(inplanes, planes, stride=stride, dilation=rates[0], downsample=downsample, **options)]
        super().__init__(*blocks, *(block(width, planes, stride=1, dilation=rate, **options) for rate in rates[1:]))


class SelfAttentionBlock(self_attention.SelfAttention):
    """Attention of one map to another (OCRNet's, ANN's, ISANet's)."""

    def __init__(
        self, key_in_channels: int, query_in_channels: int, channels: int, out_channels: int, share_key_query: bool,
        query_downsample: Any, key_downsample: Any, key_query_num_convs: int, value_out_num_convs: int,
        key_query_norm: bool, value_out_norm: bool, matmul_norm: bool, with_out: bool, *cfgs: Any, **style: Any,
    ) -> None:  # fmt: skip
        style |= dict(zip(WORDS["CFGS"].split(), cfgs, strict=False))
        ends, wide = (key_query_num_convs, key_query_norm), (value_out_num_convs, value_out_norm)
        key = self.build_project(key_in_channels, channels, *ends, **style)
        query = key if share_key_query else self.build_project(query_in_channels, channels, *ends, **style)
        value = self.build_project(key_in_channels, channels if with_out else out_channels, *wide, **style)
        out = self.build_project(channels, out_channels, *wide, **style) if with_out else None
        pools, scale = {"key_pool": key_downsample, "query_pool": query_downsample}, None if matmul_norm else 1.0
        super().__init__(key=key, query=query, value=value, out=out, **pools, scale=scale)
        self.key_downsample, self.query_downsample = key_downsample, query_downsample
        self.channels, self.out_channels, self.matmul_norm = channels, out_channels, matmul_norm

    def build_project(
        self, in_channels: int, channels: int, num_convs: int, use_conv_module: bool, **style: Any
    ) -> Any:
        widths = [in_channels, *[channels] * (num_convs - 1)]
        made = [ConvModule(w, channels, 1, **style) if use_conv_module else nn.Conv2d(w, channels, 1) for w in widths]
        return nn.Sequential(*made) if len(made) > 1 else made[0]


class UpConvBlock(nn.Module):
    """UNet's upsampling of a map, joined with the one of the encoder."""

    def __init__(
        self, conv_block: Any, in_channels: int, skip_channels: int, out_channels: int, num_convs: int = 2,
        stride: int = 1, dilation: int = 1, with_cp: bool = False, conv_cfg: Any = None, norm_cfg: Any = BN,
        act_cfg: Any = RELU, upsample_cfg: Any = {"type": "InterpConv"}, **kwargs: Any,  # noqa: B006
    ) -> None:  # fmt: skip
        super().__init__()
        style: dict[str, Any] = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        options = {"num_convs": num_convs, "stride": stride, "dilation": dilation, "with_cp": with_cp, **kwargs}
        self.conv_block = conv_block(2 * skip_channels, out_channels, conv_cfg=conv_cfg, **style, **options)
        sizes = {"in_channels": in_channels, "out_channels": skip_channels}
        if upsample_cfg is None:
            self.upsample: Any = ConvModule(in_channels, skip_channels, 1, conv_cfg=conv_cfg, **style)
        else:
            self.upsample = MODELS.build({**upsample_cfg, **sizes, **style})

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.conv_block(torch.cat([skip, self.upsample(x)], dim=1))


class Mlp(BaseModule):
    """1x1, depthwise 3x3, activation, 1x1 of a map."""

    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_cfg: Any = GELU, drop: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        hidden = hidden_features or in_features
        for name, child in mscan.ConvFeedForward(in_features, hidden, act_cfg=act_cfg, drop=drop).named_children():
            self.add_module(name, child)
        if out_features not in (None, in_features):
            self.fc2 = nn.Conv2d(hidden, out_features, 1)  # type: ignore[arg-type]

    forward = mscan.ConvFeedForward.forward  # type: ignore[assignment]


class MSCABlock(Part, mscan.ScaledBlock):
    """SegNeXt's block; (N, h * w, C) and the grid, or a map."""

    def __init__(
        self, channels: int, attention_kernel_sizes: Any = KERNELS, attention_kernel_paddings: Any = PADDINGS,
        mlp_ratio: float = 4.0, drop: float = 0.0, drop_path: float = 0.0, act_cfg: Any = GELU, norm_cfg: Any = SYNC,
    ) -> None:  # fmt: skip
        attention = TABLE["MSCASpatialAttention"](channels, attention_kernel_sizes, attention_kernel_paddings, act_cfg)
        mlp = Mlp(channels, int(channels * mlp_ratio), act_cfg=act_cfg, drop=drop)
        options = {"norm_cfg": norm_cfg, "drop_path_rate": drop_path, "scale": 1e-2}
        mscan.ScaledBlock.__init__(self, channels, attention, mlp, **options)  # type: ignore[arg-type]
        vars(self).update(_is_init=False, init_cfg=None)

    def forward(self, x: Tensor, H: int | None = None, W: int | None = None) -> Tensor:
        return super().forward(x) if H is None or W is None else as_tokens(super().forward(as_map(x, (H, W))))


class StemConv(BaseModule):
    """Two strided convolutions -> tokens and their grid."""

    def __init__(self, in_channels: int, out_channels: int, act_cfg: Any = GELU, norm_cfg: Any = SYNC) -> None:
        super().__init__()
        self.proj: Any = mscan.stem(in_channels, out_channels, act_cfg=act_cfg, norm_cfg=norm_cfg).proj
        self.norm: Any = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.norm(self.proj(x))
        return as_tokens(x), x.shape[2], x.shape[3]


class OverlapPatchEmbed(StemConv):
    """A strided convolution whose windows overlap -> tokens and their grid."""

    def __init__(self, patch_size: int = 7, stride: int = 4, in_channels: int = 3, embed_dim: int = 768,
                 norm_cfg: Any = SYNC) -> None:  # fmt: skip
        BaseModule.__init__(self)
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride, patch_size // 2)
        self.norm = build_norm_layer(norm_cfg, embed_dim)[1]


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


class MixFFN(BaseModule):
    """SegFormer's feed-forward network of tokens, with a depthwise convolution over their grid."""

    def __init__(self, embed_dims: int, feedforward_channels: int, act_cfg: Any = GELU, ffn_drop: float = 0.0,
                 dropout_layer: Any = None, init_cfg: Any = None) -> None:  # fmt: skip
        super().__init__(init_cfg)
        wide, drop = feedforward_channels, nn.Dropout(ffn_drop)
        depthwise, activation = nn.Conv2d(wide, wide, 3, padding=1, groups=wide), layers.build_activation_layer(act_cfg)
        ends = nn.Conv2d(embed_dims, wide, 1), nn.Conv2d(wide, embed_dims, 1)
        self.layers = nn.Sequential(ends[0], depthwise, activation, drop, ends[1], drop)
        self.dropout_layer = layers.build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(self, x: Tensor, hw_shape: Any, identity: Tensor | None = None) -> Tensor:
        out = self.dropout_layer(as_tokens(self.layers(as_map(x, hw_shape))))
        return (x if identity is None else identity) + out


class EfficientMultiheadAttention(MultiheadAttention):
    """SegFormer's attention, whose keys are a smaller map, 1 / `sr_ratio` of the grid."""

    def __init__(
        self, *args: Any, qkv_bias: bool = False, norm_cfg: Any = LN, sr_ratio: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(*args, **{"dropout_layer": None, "batch_first": True, "bias": qkv_bias, **kwargs})
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(self.embed_dims, self.embed_dims, sr_ratio, sr_ratio)
            self.norm = build_norm_layer(norm_cfg, self.embed_dims)[1]

    def forward(self, x: Tensor, hw_shape: Any, identity: Tensor | None = None) -> Tensor:  # type: ignore[override]
        keys = x if self.sr_ratio == 1 else self.norm(as_tokens(self.sr(as_map(x, hw_shape))))
        return super().forward(x, keys, keys, x if identity is None else identity)


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """A map (N, H, W, C) as windows (N * windows, size, size, C), and its padded size."""
    below, right = -x.shape[1] % window_size, -x.shape[2] % window_size
    x = nn.functional.pad(x, (0, 0, 0, right, 0, below))
    padded = x.shape[1], x.shape[2]
    x = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))  # N, rows, size, columns, size, C
    return x.transpose(2, 3).flatten(0, 2), padded


def window_unpartition(windows: Tensor, window_size: int, pad_hw: Any, hw: Any) -> Tensor:
    """The inverse of `window_partition`."""
    x = windows.unflatten(0, (-1, pad_hw[0] // window_size, pad_hw[1] // window_size)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : hw[0], : hw[1]]


TABLE["resize_pos_embed"] = lambda embedding, source, grid, mode="bicubic", num_extra_tokens=1: (
    resize_position_embedding(embedding, source, grid, extra_tokens=num_extra_tokens, mode=mode)
)
