"""Bilinear resizing along one axis as a sparse matrix: the source lines that an output line reads, and their shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InterpolationWeights:
    """Row i of a resized axis is the sum of `weight[i, t]` times source row `index[i, t]`; the weights sum to one."""

    index: Tensor  # n, t int64
    weight: Tensor  # n, t float32

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """Source lines that one output line reads: 1 without resizing, 2 for one resizing, 3 or more for two."""
        return self.index.shape[1]

    def part(self, start: int, stop: int, first: int = 0) -> InterpolationWeights:
        """Output lines `start` to `stop`, of a source that begins at line `first`."""
        return InterpolationWeights(self.index[start:stop] - first, self.weight[start:stop])

    def flip(self) -> InterpolationWeights:
        """The same with the output reversed."""
        return InterpolationWeights(self.index.flip(0), self.weight.flip(0))

    def span(self) -> tuple[int, int]:
        """The source lines that are read: first, and one past the last."""
        return int(self.index.min()), int(self.index.max()) + 1

    def after(self, inner: InterpolationWeights) -> InterpolationWeights:
        """These weights on a source that is itself the output of `inner`: two resizings as one."""
        index = inner.index[self.index].flatten(1)
        weight = (inner.weight[self.index] * self.weight[..., None]).flatten(1)
        first = index.min(1, keepdim=True).values
        offsets = index - first
        width = int(offsets.max()) + 1
        dense = weight.new_zeros(len(index), width).scatter_add_(1, offsets, weight)
        last = index.max(1, keepdim=True).values
        return InterpolationWeights(torch.minimum(first + torch.arange(width, device=index.device), last), dense)


def bilinear(source: int, size: int, align_corners: bool, device: torch.device | str = "cpu") -> InterpolationWeights:
    """The weights of `F.interpolate(mode="bilinear")` from `source` to `size` lines."""
    index = torch.arange(size, dtype=torch.float32, device=device)
    if source == size:
        return InterpolationWeights(torch.arange(size, device=device)[:, None], torch.ones(size, 1, device=device))
    if align_corners:
        scale = (source - 1) / (size - 1) if size > 1 else 0.0
        position = index * torch.tensor(scale, dtype=torch.float32)
    else:
        position = ((index + 0.5) * torch.tensor(source / size, dtype=torch.float32) - 0.5).clamp(min=0)
    first = position.long().clamp(max=source - 1)
    second = (first + 1).clamp(max=source - 1)
    share = (position - first).clamp(0, 1)
    return InterpolationWeights(torch.stack([first, second], 1), torch.stack([1 - share, share], 1))
