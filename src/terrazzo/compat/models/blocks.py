"""Parts of official models that modules import one by one, under their names and with their arguments there."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from terrazzo.compat.models import layers
from terrazzo.compat.models.layers import ConvModule, build_norm_layer, resize
from terrazzo.compat.models.module import BaseModule, Sequential
from terrazzo.models.heads import enc
from terrazzo.models.layers import self_attention
from terrazzo.models.layers.tokens import resize_position_embedding

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
DetailBranch backbones.bisenet_v2:DetailBranch detail_channels>widths=(64,64,128) in_channels=3 CFGS
SemanticBranch backbones.bisenet_v2:SemanticBranch SEMANTIC
BGALayer backbones.bisenet_v2:BilateralGuidedAggregation out_channels>channels=128 align_corners=False CFGS
GlobalContextExtractor backbones.cgnet:GlobalContext channel>channels reduction=16 with_cp
DownsamplerBlock backbones.erfnet:Downsampler WIDTHS conv_cfg norm_cfg={"type":"BN","eps":1e-3} act_cfg
UpsamplerBlock backbones.erfnet:Upsampler WIDTHS conv_cfg norm_cfg={"type":"BN","eps":1e-3} act_cfg
NonBottleneck1d backbones.erfnet:NonBottleneck1d channels drop_rate>dropout_ratio=0.0 dilation=1 num_conv_layer CFGS
STDCModule backbones.stdc:STDCModule WIDTHS stride norm_cfg=None act_cfg=None num_convs=4 fusion_type="add"
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


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    below, right = -x.shape[1] % window_size, -x.shape[2] % window_size
    x = nn.functional.pad(x, (0, 0, 0, right, 0, below))
    padded = x.shape[1], x.shape[2]
    x = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))  # N, rows, size, columns, size, C
    return x.transpose(2, 3).flatten(0, 2), padded


def window_unpartition(windows: Tensor, window_size: int, pad_hw: Any, hw: Any) -> Tensor:
    x = windows.unflatten(0, (-1, pad_hw[0] // window_size, pad_hw[1] // window_size)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : hw[0], : hw[1]]


TABLE["resize_pos_embed"] = lambda embedding, source, grid, mode="bicubic", num_extra_tokens=1: (
    resize_position_embedding(embedding, source, grid, extra_tokens=num_extra_tokens, mode=mode)
)
