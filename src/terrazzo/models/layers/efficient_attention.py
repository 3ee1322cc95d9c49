"""Attention to a shrunken map."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.models.layers.norm import build_norm
from terrazzo.models.layers.resize import at_least
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.tokens import Grid, as_map, as_tokens
from terrazzo.models.layers.transformer import AttentionBranch


class EfficientAttention(AttentionBranch):
    """Attention whose keys and values come from the map shrunk by `sr_ratio` (PVT, Wang et al., ICCV 2021)."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        sr_ratio: int = 1,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        **options: Any,
    ) -> None:
        super().__init__(embed_dims, num_heads, **options)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(embed_dims, embed_dims, sr_ratio, stride=sr_ratio)
            self.norm = build_norm(norm_cfg, embed_dims)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) of the grid (h, w) -> the residual branch."""
        if self.sr_ratio == 1:
            return self.attend(x)
        return self.attend(x, self.norm(as_tokens(self.sr(at_least(as_map(x, grid), self.sr_ratio)))))
