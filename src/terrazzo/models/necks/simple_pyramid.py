"""The simple feature pyramid of a plain transformer's last map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import ConvBlock, Spec
from terrazzo.registry import MODELS


@MODELS.register
class SimpleFeaturePyramid(nn.Module):
    """Maps of the last one at the given `scales`, each from it alone (Li et al., ViTDet, ECCV 2022).

    A scale above 1 is reached by transposed convolutions, one below by max pooling; scales are powers of 2, finest
    first. Raises UserError for others.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        norm_cfg: Spec = {"type": "LN2d"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        levels = [math.log2(scale) for scale in scales]
        if any(level != int(level) for level in levels):
            raise UserError(f"SimpleFeaturePyramid: scales={list(scales)} must be powers of 2, such as 4, 2, 1 and 0.5")
        self.levels = nn.ModuleList(self.level(in_channels[-1], out_channels, int(level), norm_cfg) for level in levels)

    def level(self, width: int, out_channels: int, doublings: int, norm_cfg: Spec) -> nn.Sequential:
        """The layers from the last map to one of its scales."""
        layers: list[nn.Module] = []
        for index in range(doublings):
            layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
            width //= 2
            if index < doublings - 1:
                layers += [nn.GroupNorm(1, width), nn.GELU()]
        if doublings < 0:
            layers.append(nn.MaxPool2d(2**-doublings, ceil_mode=True))
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": None}
        layers += [
            ConvBlock(width, out_channels, 1, **style),
            ConvBlock(out_channels, out_channels, 3, padding=1, **style),
        ]
        return nn.Sequential(*layers)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level(inputs[-1]) for level in self.levels)
