"""MAE's vision transformer as a backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.backbones.beit import BEiT, Grid
from terrazzo.models.backbones.beit_weights import MAE_NAMINGS
from terrazzo.models.layers import resize_learned, resize_position_embedding
from terrazzo.registry import MODELS


@MODELS.register
class MAE(BEiT):
    """MAE (He et al., CVPR 2022), fine-tuned: BEiT's layers with a full query, key and value bias, and absolute
    positions too.

    Runs at any size: the position embeddings are interpolated as well.
    """

    namings = MAE_NAMINGS

    full_bias = True

    def __init__(self, *, embed_dims: int = 768, **kwargs: Any) -> None:
        super().__init__(embed_dims=embed_dims, **kwargs)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.grid, extra_tokens=1) if name == "pos_embed" else None

    def embed(self, patches: Tensor, grid: Grid) -> Tensor:
        return super().embed(patches, grid) + resize_position_embedding(self.pos_embed, self.grid, grid)
