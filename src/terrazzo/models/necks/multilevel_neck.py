"""Neck that gives the maps of a plain transformer different scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, resize
from terrazzo.registry import MODELS

Spec = dict[str, Any]


@MODELS.register
class MultiLevelNeck(nn.Module):
    """Project every map, rescale map i by `scales[i]`, convolve; a single map serves all scales."""

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        scales: Sequence[float] = (0.5, 1, 2, 4),
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        self.scales = scales
        style = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        self.lateral_convs = nn.ModuleList(ConvBlock(width, out_channels, 1, **style) for width in in_channels)
        self.convs = nn.ModuleList(ConvBlock(out_channels, out_channels, 3, padding=1, **style) for _ in scales)
        for block in [*self.lateral_convs, *self.convs]:
            nn.init.xavier_uniform_(block.conv.weight)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs, strict=True)]
        if len(maps) == 1:
            maps = maps * len(self.scales)
        return tuple(conv(rescale(x, scale)) for conv, x, scale in zip(self.convs, maps, self.scales, strict=True))


def rescale(x: Tensor, scale: float) -> Tensor:
    """`x` resized by a factor, to one pixel at least."""
    if min(x.shape[-2:]) * scale < 1:
        return resize(x, [max(1, int(length * scale)) for length in x.shape[-2:]])
    return resize(x, scale_factor=scale)
