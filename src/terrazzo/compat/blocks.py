"""Parts of official models that modules import one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.compat.layers import (
    ConvModule,
    DepthwiseSeparableConvModule,
    build_conv_layer,
    build_norm_layer,
    resize,
)  # fmt: skip
from terrazzo.compat.module import BaseModule, Sequential
from terrazzo.compat.registry import MODELS
from terrazzo.models.layers import self_attention

RELU = {"type": "ReLU"}


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

    def __init__(
        self, dilations: Any, in_channels: int, channels: int, conv_cfg: Any, norm_cfg: Any, act_cfg: Any
    ) -> None:
        super().__init__(dilations, in_channels, channels, conv_cfg, norm_cfg, act_cfg)


# Blocks of residual networks


class Residual(BaseModule):
    """A residual block with its norms as modules `norm1`, `norm2`, ..."""

    expansion = 1
    norm_names: list[str]

    def norm(self, index: int) -> nn.Module:
        return getattr(self, self.norm_names[index - 1])

    norm1 = property(lambda self: self.norm(1))
    norm2 = property(lambda self: self.norm(2))
    norm3 = property(lambda self: self.norm(3))

    def add_norms(self, norm_cfg: Any, *widths: int) -> None:
        """Put norms under the names that checkpoints have, such as `bn1`."""
        self.norm_names = []
        for index, width in enumerate(widths, 1):
            name, norm = build_norm_layer(norm_cfg, width, postfix=index)
            self.norm_names.append(name)
            self.add_module(name, norm)
        for index, name in enumerate(self.norm_names, 1):
            vars(self)[f"norm{index}_name"] = name


class BasicBlock(Residual):
    """Two 3x3 convolutions with a shortcut (He et al., CVPR 2016)."""

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, dilation: int = 1, downsample: Any = None,
        style: str = "pytorch", with_cp: bool = False, conv_cfg: Any = None, norm_cfg: Any = {"type": "BN"},  # noqa: B006
        dcn: Any = None, plugins: Any = None, init_cfg: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        self.conv1 = build_conv_layer(
            conv_cfg, inplanes, planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.conv2 = build_conv_layer(conv_cfg, planes, planes, 3, padding=1, bias=False)
        self.add_norms(norm_cfg, planes, planes)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample
        self.stride, self.dilation, self.with_cp = stride, dilation, with_cp

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (He et al., CVPR 2016)."""

    expansion = 4

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, dilation: int = 1, downsample: Any = None,
        style: str = "pytorch", with_cp: bool = False, conv_cfg: Any = None, norm_cfg: Any = {"type": "BN"},  # noqa: B006
        dcn: Any = None, plugins: Any = None, init_cfg: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        self.inplanes, self.planes, self.stride, self.dilation = inplanes, planes, stride, dilation
        self.style, self.with_cp, self.conv_cfg, self.norm_cfg, self.dcn = style, with_cp, conv_cfg, norm_cfg, dcn
        first, second = (1, stride) if style == "pytorch" else (stride, 1)
        self.conv1_stride, self.conv2_stride = first, second
        self.conv1 = build_conv_layer(conv_cfg, inplanes, planes, 1, stride=first, bias=False)
        self.conv2 = build_conv_layer(
            dcn or conv_cfg, planes, planes, 3, stride=second, padding=dilation, dilation=dilation, bias=False
        )
        self.conv3 = build_conv_layer(conv_cfg, planes, planes * self.expansion, 1, bias=False)
        self.add_norms(norm_cfg, planes, planes, planes * self.expansion)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))))
        out = self.norm3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


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


class SELayer(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018)."""

    def __init__(
        self, channels: int, ratio: int = 16, conv_cfg: Any = None,
        act_cfg: Any = ({"type": "ReLU"}, {"type": "HSigmoid", "bias": 3.0, "divisor": 6.0}), **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        first, second = (act_cfg, act_cfg) if isinstance(act_cfg, dict) else act_cfg
        from terrazzo.compat.layers import make_divisible

        width = make_divisible(channels // ratio, 8)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, width, 1, conv_cfg=conv_cfg, act_cfg=first)
        self.conv2 = ConvModule(width, channels, 1, conv_cfg=conv_cfg, act_cfg=second)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project (Sandler et al., CVPR 2018)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expand_ratio: float, dilation: int = 1,
        conv_cfg: Any = None, norm_cfg: Any = {"type": "BN"}, act_cfg: Any = {"type": "ReLU6"},  # noqa: B006
        with_cp: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.use_res_connect = stride, stride == 1 and in_channels == out_channels
        width = round(in_channels * expand_ratio)
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, **kwargs}
        layers = [ConvModule(in_channels, width, 1, act_cfg=act_cfg, **options)] if expand_ratio != 1 else []
        layers.append(ConvModule(width, width, 3, stride, dilation, dilation, width, act_cfg=act_cfg, **options))
        layers.append(ConvModule(width, out_channels, 1, act_cfg=None, **options))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


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
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        use_conv_module: bool,
        conv_cfg: Any,
        norm_cfg: Any,
        act_cfg: Any,
    ) -> Any:
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


class Encoding(nn.Module):
    """Residuals of a map from learned codewords, with learned scales (Zhang et al., CVPR 2018) -> (N, codes, C)."""

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        self.channels, self.num_codes = channels, num_codes
        std = 1.0 / (num_codes * channels) ** 0.5
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-std, std))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        residuals = x.flatten(2).transpose(1, 2).unsqueeze(2) - self.codewords  # N, positions, codes, C
        shares = (self.scale * residuals.square().sum(3)).softmax(2).unsqueeze(3)
        return (shares * residuals).sum(1)


class UpConvBlock(nn.Module):
    """UNet's upsampling of a map, joined with the one of the encoder."""

    def __init__(
        self, conv_block: Any, in_channels: int, skip_channels: int, out_channels: int, num_convs: int = 2,
        stride: int = 1, dilation: int = 1, with_cp: bool = False, conv_cfg: Any = None,
        norm_cfg: Any = {"type": "BN"}, act_cfg: Any = RELU, upsample_cfg: Any = {"type": "InterpConv"},  # noqa: B006
        dcn: Any = None, plugins: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        options = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.conv_block = conv_block(
            in_channels=2 * skip_channels, out_channels=out_channels, num_convs=num_convs, stride=stride,
            dilation=dilation, with_cp=with_cp, dcn=None, plugins=None, **options,
        )  # fmt: skip
        if upsample_cfg is not None:
            self.upsample = MODELS.build(
                {
                    **upsample_cfg,
                    "in_channels": in_channels,
                    "out_channels": skip_channels,
                    "norm_cfg": norm_cfg,
                    "act_cfg": act_cfg,
                }
            )
        else:
            self.upsample = ConvModule(in_channels, skip_channels, 1, **options)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.conv_block(torch.cat([skip, self.upsample(x)], dim=1))


class TransformerEncoderLayer(BaseModule):
    """A pre-norm layer of ViT."""

    def __init__(
        self, embed_dims: int, num_heads: int, feedforward_channels: int, drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, num_fcs: int = 2, qkv_bias: bool = True,
        act_cfg: Any = {"type": "GELU"}, norm_cfg: Any = {"type": "LN"}, batch_first: bool = True,  # noqa: B006
        attn_cfg: Any = None, ffn_cfg: Any = None, with_cp: bool = False, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        from terrazzo.compat.transformer import FFN, MultiheadAttention

        drop = {"type": "DropPath", "drop_prob": drop_path_rate}
        self.norm1_name, norm1 = build_norm_layer(norm_cfg, embed_dims, postfix=1)
        self.norm2_name, norm2 = build_norm_layer(norm_cfg, embed_dims, postfix=2)
        self.add_module(self.norm1_name, norm1)
        self.attn = MultiheadAttention(
            embed_dims,
            num_heads,
            attn_drop_rate,
            drop_rate,
            drop,
            batch_first=batch_first,
            bias=qkv_bias,
            **(attn_cfg or {}),
        )
        self.add_module(self.norm2_name, norm2)
        self.ffn = FFN(embed_dims, feedforward_channels, num_fcs, act_cfg, drop_rate, drop, **(ffn_cfg or {}))
        self.with_cp = with_cp

    norm1 = property(lambda self: getattr(self, self.norm1_name))
    norm2 = property(lambda self: getattr(self, self.norm2_name))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x), identity=x)
        return self.ffn(self.norm2(x), identity=x)


class BaseBackbone(BaseModule):
    """The base of backbones of mmpretrain."""

    def forward(self, x: Tensor) -> Any:
        raise NotImplementedError
