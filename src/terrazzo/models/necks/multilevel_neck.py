"""A neck that rescales the maps of a plain transformer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.registry import MODELS


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
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        laterals = [ConvBlock(width, out_channels, 1, **style) for width in in_channels]
        convs = [ConvBlock(out_channels, out_channels, 3, padding=1, **style) for _ in scales]
        self.lateral_convs, self.convs = nn.ModuleList(laterals), nn.ModuleList(convs)
        for block in (*laterals, *convs):
            nn.init.xavier_uniform_(block.conv.weight)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs, strict=True)]
        if len(maps) == 1:
            maps = maps * len(self.scales)
        return tuple(conv(rescale(x, scale)) for conv, x, scale in zip(self.convs, maps, self.scales, strict=True))


def rescale(x: Tensor, scale: float) -> Tensor:
    """Resize `x` by a factor, to at least one pixel."""
    if min(x.shape[-2:]) * scale < 1:
        return resize(x, [max(1, int(length * scale)) for length in x.shape[-2:]])
    return resize(x, scale_factor=scale)
