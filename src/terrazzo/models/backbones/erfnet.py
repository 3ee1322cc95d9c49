"""ERFNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_activation, build_conv, build_norm, resize
from terrazzo.registry import MODELS


class Downsampler(nn.Module):
    """A strided convolution beside a max pooling."""

    def __init__(
        self, in_channels: int, out_channels: int, *, conv_cfg: Spec | None, norm_cfg: Spec, act_cfg: Spec
    ) -> None:
        super().__init__()
        self.conv = build_conv(conv_cfg, in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = build_norm(norm_cfg, out_channels)
        self.act = build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        filtered = self.conv(x)
        pooled = resize(self.pool(x), like=filtered)  # one row or column smaller where the size is odd
        return self.act(self.bn(torch.cat([filtered, pooled], dim=1)))


class NonBottleneck1d(nn.Module):
    """A residual block of two 3x3 convolutions, each factorised into 3x1 and 1x3; the second pair is dilated."""

    def __init__(
        self,
        channels: int,
        *,
        dropout_ratio: float = 0.0,
        dilation: int = 1,
        conv_cfg: Spec | None,
        norm_cfg: Spec,
        act_cfg: Spec,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in (1, dilation):
            layers += [
                build_conv(conv_cfg, channels, channels, (3, 1), padding=(step, 0), dilation=(step, 1)),
                build_activation(act_cfg),
                build_conv(conv_cfg, channels, channels, (1, 3), padding=(0, step), dilation=(1, step)),
                build_norm(norm_cfg, channels),
            ]
            layers.append(build_activation(act_cfg) if len(layers) == 4 else nn.Dropout(dropout_ratio))
        self.convs_layers = nn.Sequential(*layers)
        self.act = build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convs_layers(x) + x)


class Upsampler(nn.Module):
    """A transposed convolution that doubles the size."""

    def __init__(self, in_channels: int, out_channels: int, *, norm_cfg: Spec, act_cfg: Spec) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.bn = build_norm(norm_cfg, out_channels)
        self.act = build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


@MODELS.register
class ERFNet(Backbone):
    """ERFNet (Romera et al., T-ITS 2018), encoder and decoder -> one map at 1/2.

    The encoder's last stage repeats `enc_non_bottleneck_dilations` until it has its number of blocks. Norms
    have an eps of 1e-3, as in the paper's code, unless `norm_cfg` sets it.
    """

    stem_parts = ("encoder.0",)
    stage_parts = ("encoder.{1}",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        enc_downsample_channels: Sequence[int] = (16, 64, 128),
        enc_stage_non_bottlenecks: Sequence[int] = (5, 8),
        enc_non_bottleneck_dilations: Sequence[int] = (2, 4, 8, 16),
        enc_non_bottleneck_channels: Sequence[int] = (64, 128),
        dec_upsample_channels: Sequence[int] = (64, 16),
        dec_stages_non_bottleneck: Sequence[int] = (2, 2),
        dec_non_bottleneck_channels: Sequence[int] = (64, 16),
        dropout_ratio: float = 0.1,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN", "requires_grad": True},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        style: Spec = {"norm_cfg": {"eps": 1e-3} | norm_cfg, "act_cfg": act_cfg}
        conv_style: Spec = style | {"conv_cfg": conv_cfg}

        # encoder: a downsampling, then residual blocks
        first, *stages = enc_downsample_channels
        self.encoder = nn.ModuleList([Downsampler(in_channels, first, **conv_style)])
        width = first
        for index, channels in enumerate(stages):
            self.encoder.append(Downsampler(width, channels, **conv_style))
            width = channels
            dilations = enc_non_bottleneck_dilations if index == len(stages) - 1 else (1,)
            for block in range(enc_stage_non_bottlenecks[index]):
                options = conv_style | {"dropout_ratio": dropout_ratio, "dilation": dilations[block % len(dilations)]}
                self.encoder.append(NonBottleneck1d(enc_non_bottleneck_channels[index], **options))

        # decoder: an upsampling, then residual blocks
        self.decoder = nn.ModuleList()
        for index, channels in enumerate(dec_upsample_channels):
            self.decoder.append(Upsampler(width, channels, **style))
            width = channels
            for _ in range(dec_stages_non_bottleneck[index]):
                self.decoder.append(NonBottleneck1d(dec_non_bottleneck_channels[index], **conv_style))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer in (*self.encoder, *self.decoder):
            x = layer(x)
        return (x,)
