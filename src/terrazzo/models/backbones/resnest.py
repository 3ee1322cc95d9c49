"""ResNeXt and ResNeSt: ResNets whose 3x3 convolutions are grouped."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.models.backbones.resnet import ARCHITECTURES, Block, ResNet, ResNetV1d, grouped_width
from terrazzo.models.layers import Spec, build_conv, build_norm, norm_name
from terrazzo.models.layers.init import init_kaiming
from terrazzo.registry import MODELS


@MODELS.register
class ResNeXt(ResNet):
    """ResNeXt (Xie et al., CVPR 2017): ResNet with grouped 3x3 convolutions; `groups=32, base_width=4` is "32x4d"."""

    architectures = {depth: ARCHITECTURES[depth] for depth in (50, 101, 152)}  # noqa: RUF012 - never written to

    def __init__(self, *, groups: int = 1, base_width: int = 4, base_channels: int = 64, **kwargs: Any) -> None:
        self.block_shape = {"groups": groups, "base_width": base_width * 64 / base_channels}
        super().__init__(base_channels=base_channels, **kwargs)


class SplitAttentionConv(nn.Module):
    """A grouped 3x3 convolution to `radix` splits, which are added with weights computed from the mean of their sum."""

    def __init__(
        self,
        channels: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        radix: int,
        reduction_factor: int,
        conv_cfg: Spec | None,
        norm_cfg: Spec,
    ) -> None:
        super().__init__()
        self.groups, self.radix = groups, radix
        splits = channels * radix
        inner = max(splits // reduction_factor, 32)
        self.norms = [f"{norm_name(norm_cfg)}{number}" for number in (0, 1)]
        options: Spec = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": groups * radix}
        self.conv = build_conv(conv_cfg, channels, splits, 3, bias=False, **options)
        self.add_module(self.norms[0], build_norm(norm_cfg, splits))
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = build_conv(None, channels, inner, 1, groups=groups)
        self.add_module(self.norms[1], build_norm(norm_cfg, inner))
        self.fc2 = build_conv(None, inner, splits, 1, groups=groups)
        init_kaiming(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        splits = self.relu(getattr(self, self.norms[0])(self.conv(x)))
        splits = splits.unflatten(1, (self.radix, -1))  # N, radix, C, H, W
        mean = splits.sum(1).mean((2, 3), keepdim=True)  # N, C, 1, 1
        gate = self.fc2(self.relu(getattr(self, self.norms[1])(self.fc1(mean))))
        return (splits * self.split_weights(gate)).sum(1)

    def split_weights(self, gate: Tensor) -> Tensor:
        """(N, radix * C, 1, 1), grouped before split -> (N, radix, C, 1, 1) that sum to 1 over the splits."""
        gate = gate.unflatten(1, (self.groups, self.radix, -1)).transpose(1, 2)  # N, radix, groups, C / groups, 1, 1
        return (gate.softmax(1) if self.radix > 1 else gate.sigmoid()).flatten(2, 3)


class SplitAttentionBottleneck(Block):
    """1x1, split attention (which replaces 3x3), 1x1; with `avg_down_stride` the stride is an average pooling."""

    expansion = 4

    def add_layers(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        style: str,
        *,
        groups: int,
        base_width: float,
        avg_down_stride: bool,
        **attention: Any,
    ) -> None:
        first, second = (1, stride) if style == "pytorch" else (stride, 1)
        pooled = avg_down_stride and second > 1
        width = grouped_width(channels, groups, base_width)
        self.add_conv(1, in_channels, width, 1, stride=first)
        attention |= {"groups": groups, "conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg}
        self.conv2 = SplitAttentionConv(width, stride=1 if pooled else second, dilation=dilation, **attention)
        self.avd_layer = nn.AvgPool2d(3, second, padding=1) if pooled else nn.Identity()
        self.add_conv(3, width, channels * self.expansion, 1)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv_norm(1, x))
        return self.conv_norm(3, self.avd_layer(self.conv2(x)))


@MODELS.register
class ResNeSt(ResNetV1d):
    """ResNeSt (Zhang et al., CVPRW 2022): ResNetV1d with attention over the splits of each 3x3 convolution."""

    architectures = {  # noqa: RUF012 - never written to
        depth: (SplitAttentionBottleneck, counts)
        for depth, counts in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3)), (200, (3, 24, 36, 3)))
    }

    def __init__(
        self,
        *,
        groups: int = 1,
        base_width: int = 4,
        base_channels: int = 64,
        radix: int = 2,
        reduction_factor: int = 4,
        avg_down_stride: bool = True,
        **kwargs: Any,
    ) -> None:
        self.block_shape = {
            "groups": groups,
            "base_width": base_width * 64 / base_channels,
            "radix": radix,
            "reduction_factor": reduction_factor,
            "avg_down_stride": avg_down_stride,
        }
        super().__init__(base_channels=base_channels, **kwargs)
