"""UNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import ConvBlock, Spec, Upsample, build_activation, build_norm, maybe_checkpoint, resize
from terrazzo.registry import MODELS


class ConvStage(nn.Module):
    """A few 3x3 convolutions; the first has the stride, the others the dilation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        count: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        with_cp: bool,
        **style: Any,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        first = ConvBlock(in_channels, channels, 3, stride=stride, padding=1, **style)
        dilated: Spec = style | {"padding": dilation, "dilation": dilation}
        self.convs = nn.Sequential(first, *(ConvBlock(channels, channels, 3, **dilated) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.convs, x, enabled=self.with_cp)


class InterpConv(nn.Module):
    """Interpolate, then convolve (or the reverse with `conv_first`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv_first: bool = False,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        upsample_cfg: Spec = {"scale_factor": 2, "mode": "bilinear", "align_corners": False},  # noqa: B006
        with_cp: bool = False,
        **style: Any,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        conv = ConvBlock(in_channels, out_channels, kernel_size, stride=stride, padding=padding, **style)
        upsample = Upsample(**upsample_cfg)
        self.interp_upsample = nn.Sequential(*((conv, upsample) if conv_first else (upsample, conv)))

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.interp_upsample, x, enabled=self.with_cp)


class DeconvModule(nn.Module):
    """Transposed convolution, norm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_cfg: Spec,
        act_cfg: Spec,
        conv_cfg: Spec | None = None,
        kernel_size: int = 4,
        scale_factor: int = 2,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        if kernel_size < scale_factor or (kernel_size - scale_factor) % 2:
            raise UserError(
                f"DeconvModule: kernel_size {kernel_size} must be scale_factor {scale_factor} plus an even number"
            )
        padding = (kernel_size - scale_factor) // 2
        self.deconv_upsamping = nn.Sequential(  # as spelled in published checkpoints
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size, scale_factor, padding),
            build_norm(norm_cfg, out_channels),
            build_activation(act_cfg),
        )

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self.deconv_upsamping, x, enabled=self.with_cp)


UPSAMPLES: dict[str, type[nn.Module]] = {"InterpConv": InterpConv, "DeconvModule": DeconvModule}


class UpStage(nn.Module):
    """Upsample the coarse map of twice the channels, concatenate the skip connection, convolve."""

    def __init__(self, channels: int, count: int, *, upsample_cfg: Spec | None, dilation: int, **style: Any) -> None:
        super().__init__()
        self.conv_block = ConvStage(2 * channels, channels, count, dilation=dilation, **style)
        if upsample_cfg is None:
            style.pop("with_cp")
            self.upsample: nn.Module = ConvBlock(2 * channels, channels, 1, **style)
            return
        options = dict(upsample_cfg)
        kind = options.pop("type")
        if kind not in UPSAMPLES:
            raise UserError(f"UNet: no upsample_cfg is called '{kind}'{nearest(str(kind), UPSAMPLES)}")
        self.upsample = UPSAMPLES[kind](2 * channels, channels, **(style | options))

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        x = resize(self.upsample(x), like=skip)  # sizes differ by one where the skip's is odd
        return self.conv_block(torch.cat([skip, x], dim=1))


@MODELS.register
class UNet(Backbone):
    """UNet (Ronneberger et al., MICCAI 2015) -> the coarsest map and every decoder map, ending with the finest.

    Stage i > 0 halves the map by a stride of 2, or by max pooling where `downsamples[i - 1]`.
    """

    stage_parts = ("encoder.{0}",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        base_channels: int = 64,
        num_stages: int = 5,
        strides: Sequence[int] = (1, 1, 1, 1, 1),
        enc_num_convs: Sequence[int] = (2, 2, 2, 2, 2),
        dec_num_convs: Sequence[int] = (2, 2, 2, 2),
        downsamples: Sequence[bool] = (True, True, True, True),
        enc_dilations: Sequence[int] = (1, 1, 1, 1, 1),
        dec_dilations: Sequence[int] = (1, 1, 1, 1),
        with_cp: bool = False,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
        upsample_cfg: Spec = {"type": "InterpConv"},  # noqa: B006 - never written to
        norm_eval: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.norm_eval = norm_eval
        style: Spec = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg, "with_cp": with_cp}
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()

        # stage i of the encoder, and the decoder stage that brings its map to the size of the one before
        for index in range(num_stages):
            channels = base_channels * 2**index
            stage: list[nn.Module] = []
            if index > 0:
                if strides[index] == 1 and downsamples[index - 1]:
                    stage.append(nn.MaxPool2d(2))
                upsample = upsample_cfg if strides[index] != 1 or downsamples[index - 1] else None
                options: Spec = {"upsample_cfg": upsample, "dilation": dec_dilations[index - 1]}
                self.decoder.append(UpStage(channels // 2, dec_num_convs[index - 1], **options, **style))
            options = {"stride": strides[index], "dilation": enc_dilations[index]}
            stage.append(ConvStage(in_channels, channels, enc_num_convs[index], **options, **style))
            self.encoder.append(nn.Sequential(*stage))
            in_channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = [x]
        for index in reversed(range(len(self.decoder))):
            x = self.decoder[index](skips[index], x)
            outputs.append(x)
        return tuple(outputs)
