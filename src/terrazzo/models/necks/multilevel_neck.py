"""Necks that make a pyramid of the maps of a plain transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import ConvBlock, Spec, build_norm, resize
from terrazzo.models.layers.sizes import larger, smaller, surely
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
    if surely(smaller(*x.shape[-2:]) * scale < 1):
        return resize(x, [larger(1, int(length * scale)) for length in x.shape[-2:]])
    return resize(x, scale_factor=scale)


@MODELS.register
class Feature2Pyramid(nn.Module):
    """Rescale map i by `rescales[i]`: 4 and 2 by transposed convolutions, 1/2 and 1/4 by max pooling (BEiT, 2021).

    Raises UserError for another factor.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        rescales: Sequence[float] = (4, 2, 1, 0.5),
        norm_cfg: Spec = {"type": "SyncBN", "requires_grad": True},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        self.rescales = rescales
        for scale in rescales:
            if scale == 4:
                self.upsample_4x = nn.Sequential(
                    nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                    build_norm(norm_cfg, embed_dim),
                    nn.GELU(),
                    nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                )
            elif scale == 2:
                self.upsample_2x = nn.Sequential(nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2))
            elif scale not in (1, 0.5, 0.25):
                raise UserError(f"Feature2Pyramid: rescales={list(rescales)} may contain only 4, 2, 1, 0.5 and 0.25")

    def rescale(self, x: Tensor, scale: float) -> Tensor:
        if scale > 1:
            return self.upsample_4x(x) if scale == 4 else self.upsample_2x(x)
        factor = round(1 / scale)
        return F.max_pool2d(x, factor, ceil_mode=surely(smaller(*x.shape[-2:]) < factor))  # a tiny map keeps one pixel

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.rescale(x, scale) for x, scale in zip(inputs, self.rescales, strict=True))
