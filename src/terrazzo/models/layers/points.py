"""Values of maps at points, and drawing points where a mask is least sure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(x: Tensor, points: Tensor) -> Tensor:
    """The values of maps (N, C, H, W) at points (N, P, 2), x and y in 0..1 -> (N, C, P), zero outside."""
    return F.grid_sample(x, 2 * points.unsqueeze(2) - 1, align_corners=False).squeeze(3)


@torch.no_grad()
def draw_points(masks: Tensor, count: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    """Points (M, count, 2) for mask logits (M, H, W) as PointRend draws them (Kirillov et al., CVPR 2020).

    The part `importance_ratio` are those closest to the border among `oversample_ratio` times as many; the others are
    from anywhere.
    """
    points = torch.rand(len(masks), int(count * oversample_ratio), 2, device=masks.device)
    distance = sample_points(masks.unsqueeze(1), points.to(masks.dtype)).squeeze(1).abs()
    chosen = distance.topk(int(count * importance_ratio), dim=1, largest=False).indices.unsqueeze(2)
    anywhere = torch.rand(len(masks), count - chosen.shape[1], 2, device=masks.device)
    return torch.cat([points.gather(1, chosen.expand(-1, -1, 2)), anywhere], dim=1)
