"""Sampling of maps at points, and drawing points where logits are least certain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(x: Tensor, points: Tensor, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Return the values of maps (N, C, H, W) at points (N, P, 2), x and y in 0..1 -> (N, C, P), zero outside."""
    return F.grid_sample(x, 2 * points.unsqueeze(2) - 1, mode=mode, align_corners=align_corners).squeeze(3)


def uncertainty(logits: Tensor) -> Tensor:
    """Return minus the margin of the two best classes (N, K, ...), or of a mask's logit (N, 1, ...): at most 0."""
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


@torch.no_grad()
def draw_points(
    logits: Tensor, count: int, oversample_ratio: float, importance_ratio: float, align_corners: bool = False
) -> Tensor:
    """Draw points (N, count, 2) for logits (N, K, H, W) as PointRend does (Kirillov et al., CVPR 2020).

    A share of `importance_ratio` is the least certain of `oversample_ratio` times as many; the rest is uniform.
    """
    points = torch.rand(logits.shape[0], int(count * oversample_ratio), 2, device=logits.device)
    values = sample_points(logits, points.to(logits.dtype), align_corners=align_corners)
    chosen = uncertainty(values).topk(int(count * importance_ratio), dim=1).indices.unsqueeze(2)
    anywhere = torch.rand(logits.shape[0], count - chosen.shape[1], 2, device=logits.device)
    return torch.cat([points.gather(1, chosen.expand(-1, -1, 2)), anywhere], dim=1)
