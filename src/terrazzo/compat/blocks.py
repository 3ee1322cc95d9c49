"""Parts of official models that modules import one by one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.layers import (
    ConvModule,
    DepthwiseSeparableConvModule,
    build_conv_layer,
    build_norm_layer,
    resize,
    show_as_theirs,
)
from terrazzo.compat.module import BaseModule, Sequential
from terrazzo.compat.registry import MODELS
from terrazzo.models.backbones import mobilenet_v2, mobilenet_v3, resnet
from terrazzo.models.heads import enc
from terrazzo.models.layers import self_attention, transformer


class Part(BaseModule):
    """The constructor of a part of ours as it is called there: arguments in another order, some under other names."""

    order: str
    renamed: dict[str, str]
    defaults: dict[str, Any]

    def __init__(self, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        given = {**self.defaults, **dict(zip(self.order.split(), args, strict=False)), **kwargs}
        takes = inspect.signature(super(BaseModule, self).__init__).parameters
        options = {self.renamed.get(key, key): value for key, value in given.items()}
        if not any(item.kind is item.VAR_KEYWORD for item in takes.values()):
            unknown = [
                key for key in kwargs if self.renamed.get(key, key) not in takes and key not in self.order.split()
            ]
            if unknown:
                raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
            options = {key: value for key, value in options.items() if key in takes}
        needed = {key for key, parameter in takes.items() if parameter.default is parameter.empty}
        super(BaseModule, self).__init__(
            **{key: value for key, value in options.items() if value is not None or key in needed}
        )
        vars(self).update(_is_init=False, init_cfg=init_cfg)
        for key, value in given.items():
            if not hasattr(self, key):
                setattr(self, key, value)
        show_as_theirs(self)


def part(ours: type, order: str, renamed: dict[str, str] | None = None, mixin: type = Part, **defaults: Any) -> Any:
    """A part of ours under its name there, by the `order` of its arguments."""
    body = {"order": order, "renamed": renamed or {}, "defaults": defaults, "__module__": __name__}
    return type(ours.__name__, (mixin, ours), body | {"__doc__": ours.__doc__})


class Residual(Part):
    """A residual block with its norms as modules `norm1`, `norm2`, ... too."""

    norm1 = property(lambda self: getattr(self, self.norms[0]))
    norm2 = property(lambda self: getattr(self, self.norms[1]))
    norm3 = property(lambda self: getattr(self, self.norms[2]))
    norm1_name = property(lambda self: self.norms[0])
    norm2_name = property(lambda self: self.norms[1])
    norm3_name = property(lambda self: self.norms[2])


PLANES = {"inplanes": "in_channels", "planes": "channels"}
BLOCK = "inplanes planes stride dilation downsample style with_cp conv_cfg norm_cfg dcn plugins"
BN: dict[str, Any] = {"conv_cfg": None, "norm_cfg": {"type": "BN"}}
BasicBlock = part(resnet.BasicBlock, BLOCK, PLANES, Residual, with_cp=False, **BN)
Bottleneck = part(resnet.Bottleneck, BLOCK, PLANES, Residual, with_cp=False, **BN)
InvertedResidual = part(
    mobilenet_v2.InvertedResidual,
    "in_channels out_channels stride expand_ratio dilation conv_cfg norm_cfg act_cfg with_cp",
    act_cfg={"type": "ReLU6"},
    **BN,
)
SELayer = part(mobilenet_v3.SqueezeExcitation, "channels ratio conv_cfg", ratio=16, conv_cfg=None)
TransformerEncoderLayer = part(
    transformer.TransformerEncoderLayer,
    "embed_dims num_heads feedforward_channels drop_rate attn_drop_rate drop_path_rate num_fcs qkv_bias act_cfg "
    "norm_cfg",
)
TransformerEncoderLayer.norm1 = property(lambda self: self.ln1)
TransformerEncoderLayer.norm2 = property(lambda self: self.ln2)


class Encoding(enc.Encoding):
    """Residuals of a map from learned codewords (Zhang et al., CVPR 2018) -> (N, codes, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(3)


class PPM(nn.ModuleList):
    """A pooling pyramid: the list of contexts of a map, at its size."""

    def __init__(
        self, pool_scales: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any,
        align_corners: bool, **kwargs: Any,
    ) -> None:  # fmt: skip
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg, **kwargs}
        super().__init__(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvModule(in_channels, channels, 1, **options))
            for scale in pool_scales
        )
        self.pool_scales, self.align_corners = pool_scales, align_corners

    def forward(self, x: Tensor) -> list[Tensor]:
        return [resize(pool(x), x.shape[2:], None, "bilinear", self.align_corners) for pool in self]


class ASPPModule(nn.ModuleList):
    """Parallel convolutions of a map with different dilations: the list of their outputs."""

    conv: Any = ConvModule

    def __init__(
        self, dilations: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any
    ) -> None:
        super().__init__()
        self.dilations, self.in_channels, self.channels = dilations, in_channels, channels
        self.conv_cfg, self.norm_cfg, self.act_cfg = conv_cfg, norm_cfg, act_cfg
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        for rate in dilations:
            size, padding = (1, 0) if rate == 1 else (3, rate)
            kind = ConvModule if rate == 1 else self.conv
            own = options if kind is ConvModule else {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
            self.append(kind(in_channels, channels, size, dilation=rate, padding=padding, **own))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self]


class DepthwiseSeparableASPPModule(ASPPModule):
    """ASPPModule of separable convolutions."""

    conv = DepthwiseSeparableConvModule


class ResLayer(Sequential):
    """Blocks one after the other, the first with the stride and, where sizes differ, a projected shortcut."""

    def __init__(
        self, block: Any, inplanes: int, planes: int, num_blocks: int, stride: int = 1, dilation: int = 1,
        avg_down: bool = False, conv_cfg: Any = None, norm_cfg: Any = {"type": "BN"}, multi_grid: Any = None,  # noqa: B006
        contract_dilation: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.block = block
        width = planes * block.expansion
        downsample = None
        if stride != 1 or inplanes != width:
            steps: list[nn.Module] = []
            if avg_down:
                steps.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
            conv_stride = 1 if avg_down else stride
            steps.append(build_conv_layer(conv_cfg, inplanes, width, 1, stride=conv_stride, bias=False))
            downsample = nn.Sequential(*steps, build_norm_layer(norm_cfg, width)[1])
        rates = [dilation] * num_blocks if multi_grid is None else [dilation * rate for rate in multi_grid]
        if multi_grid is None and dilation > 1 and contract_dilation:
            rates[0] = dilation // 2
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, **kwargs}
        blocks = [block(inplanes, planes, stride=stride, dilation=rates[0], downsample=downsample, **options)]
        blocks += [block(width, planes, stride=1, dilation=rate, **options) for rate in rates[1:]]
        super().__init__(*blocks)


class SelfAttentionBlock(self_attention.SelfAttention):
    """Attention of one map to another (OCRNet's, ANN's, ISANet's)."""

    def __init__(
        self, key_in_channels: int, query_in_channels: int, channels: int, out_channels: int, share_key_query: bool,
        query_downsample: Any, key_downsample: Any, key_query_num_convs: int, value_out_num_convs: int,
        key_query_norm: bool, value_out_norm: bool, matmul_norm: bool, with_out: bool, conv_cfg: Any, norm_cfg: Any,
        act_cfg: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        build = self.build_project
        key = build(key_in_channels, channels, key_query_num_convs, key_query_norm, **options)
        query = (
            key
            if share_key_query
            else build(query_in_channels, channels, key_query_num_convs, key_query_norm, **options)
        )
        width = channels if with_out else out_channels
        value = build(key_in_channels, width, value_out_num_convs, value_out_norm, **options)
        out = build(channels, out_channels, value_out_num_convs, value_out_norm, **options) if with_out else None
        super().__init__(
            key=key, query=query, value=value, out=out, key_pool=key_downsample, query_pool=query_downsample,
            scale=None if matmul_norm else 1.0,
        )  # fmt: skip
        self.key_downsample, self.query_downsample = key_downsample, query_downsample
        self.channels, self.out_channels, self.matmul_norm = channels, out_channels, matmul_norm

    def build_project(
        self, in_channels: int, channels: int, num_convs: int, use_conv_module: bool, conv_cfg: Any, norm_cfg: Any,
        act_cfg: Any,
    ) -> Any:  # fmt: skip
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        widths = [in_channels, *[channels] * (num_convs - 1)]
        made = [ConvModule(w, channels, 1, **options) if use_conv_module else nn.Conv2d(w, channels, 1) for w in widths]
        return nn.Sequential(*made) if len(made) > 1 else made[0]


class ObjectAttentionBlock(SelfAttentionBlock):
    """OCRNet's attention of pixels to the classes' regions."""

    def __init__(self, in_channels: int, channels: int, scale: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any) -> None:
        pool = nn.MaxPool2d(scale) if scale > 1 else None
        super().__init__(
            in_channels, in_channels, channels, in_channels, False, pool, None, 2, 1, True, True, True, True,
            conv_cfg, norm_cfg, act_cfg,
        )  # fmt: skip
        self.bottleneck = ConvModule(
            in_channels * 2, in_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
        )

    def forward(self, query_feats: Tensor, key_feats: Tensor) -> Tensor:
        context = super().forward(query_feats, key_feats)
        if self.query_downsample is not None:
            context = resize(context, query_feats.shape[2:], None, "bilinear", False)
        return self.bottleneck(torch.cat([context, query_feats], dim=1))


class SpatialGatherModule(nn.Module):
    """The mean of the features in each class's region -> (N, C, K, 1)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, feats: Tensor, probs: Tensor) -> Tensor:
        shares = (self.scale * probs.flatten(2)).softmax(2)
        return (shares @ feats.flatten(2).transpose(1, 2)).transpose(1, 2).contiguous().unsqueeze(3)


class UpConvBlock(nn.Module):
    """UNet's upsampling of a map, joined with the one of the encoder."""

    def __init__(
        self, conv_block: Any, in_channels: int, skip_channels: int, out_channels: int, num_convs: int = 2,
        stride: int = 1, dilation: int = 1, with_cp: bool = False, conv_cfg: Any = None,
        norm_cfg: Any = {"type": "BN"}, act_cfg: Any = {"type": "ReLU"}, upsample_cfg: Any = {"type": "InterpConv"},  # noqa: B006
        dcn: Any = None, plugins: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.conv_block = conv_block(
            in_channels=2 * skip_channels, out_channels=out_channels, num_convs=num_convs, stride=stride,
            dilation=dilation, with_cp=with_cp, dcn=None, plugins=None, **options,
        )  # fmt: skip
        if upsample_cfg is not None:
            sizes = {"in_channels": in_channels, "out_channels": skip_channels}
            self.upsample = MODELS.build({**upsample_cfg, **sizes, "norm_cfg": norm_cfg, "act_cfg": act_cfg})
        else:
            self.upsample = ConvModule(in_channels, skip_channels, 1, **options)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.conv_block(torch.cat([skip, self.upsample(x)], dim=1))


class BaseBackbone(BaseModule):
    """The base of backbones of mmpretrain."""

    def forward(self, x: Tensor) -> Any:
        raise NotImplementedError
