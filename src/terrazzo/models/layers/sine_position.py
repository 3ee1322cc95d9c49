"""Sine positions of a map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinePositions(nn.Module):
    """Rows and columns of a map as sines and cosines (Carion et al., ECCV 2020) -> (1, h * w, 2 * num_feats).

    `normalize` scales both axes to `scale`: maps of any size cover the same range.
    """

    def __init__(
        self,
        *,
        num_feats: int,
        temperature: float = 10000,
        normalize: bool = False,
        scale: float = 2 * math.pi,
        eps: float = 1e-6,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_feats, self.temperature = num_feats, temperature
        self.normalize, self.scale, self.eps, self.offset = normalize, scale, eps, offset

    def axis(self, length: int, like: Tensor) -> Tensor:
        """The encoding of each position along an axis (length, num_feats)."""
        steps = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
        if self.normalize:
            steps = (steps + self.offset) / (length + self.eps) * self.scale
        exponents = 2 * torch.arange((self.num_feats + 1) // 2, dtype=like.dtype, device=like.device) / self.num_feats
        angles = steps[:, None] / self.temperature**exponents  # length, num_feats / 2
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : self.num_feats]

    def forward(self, x: Tensor) -> Tensor:
        """Positions of the map `x` (N, C, h, w), row by row."""
        height, width = x.shape[-2:]
        rows = self.axis(height, x)[:, None].expand(height, width, self.num_feats)
        columns = self.axis(width, x)[None].expand(height, width, self.num_feats)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1).unsqueeze(0)
