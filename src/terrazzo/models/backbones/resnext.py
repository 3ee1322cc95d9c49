"""ResNeXt."""

from __future__ import annotations

from typing import Any

from terrazzo.models.backbones.resnet import Block, Bottleneck, ResNet
from terrazzo.registry import MODELS


class GroupedBottleneck(Bottleneck):
    """A bottleneck whose 3x3 convolution has `groups` groups of `base_width` channels at 64 channels of the stage."""

    def __init__(self, in_channels: int, channels: int, *, groups: int, base_width: float, **kwargs: Any) -> None:
        self.cardinality, self.base_width = groups, base_width
        super().__init__(in_channels, channels, **kwargs)

    def width(self, channels: int) -> int:
        return grouped_width(channels, self.cardinality, self.base_width)

    def groups(self) -> int:
        return self.cardinality


def grouped_width(channels: int, groups: int, base_width: float) -> int:
    """Return the channels of a grouped 3x3 convolution; one group is a plain bottleneck."""
    return channels if groups == 1 else int(channels * base_width / 64) * groups


@MODELS.register
class ResNeXt(ResNet):
    """ResNeXt (Xie et al., CVPR 2017): ResNet with grouped 3x3 convolutions; `groups=32, base_width=4` is "32x4d"."""

    architectures = {  # noqa: RUF012 - never written to
        50: (GroupedBottleneck, (3, 4, 6, 3)),
        101: (GroupedBottleneck, (3, 4, 23, 3)),
        152: (GroupedBottleneck, (3, 8, 36, 3)),
    }

    def __init__(self, *, groups: int = 1, base_width: int = 4, base_channels: int = 64, **kwargs: Any) -> None:
        self.groups, self.base_width = groups, base_width * 64 / base_channels
        super().__init__(base_channels=base_channels, **kwargs)

    def make_block(self, in_channels: int, channels: int, **options: Any) -> Block:
        return GroupedBottleneck(in_channels, channels, groups=self.groups, base_width=self.base_width, **options)
