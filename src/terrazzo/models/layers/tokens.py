"""Tokens and maps, and their layout in memory."""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int]


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """View tokens (N, h * w, C) as a map (N, C, h, w) in channels-last memory, without a copy."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_tokens(x: Tensor) -> Tensor:
    """View a map (N, C, h, w) as tokens (N, h * w, C); without a copy from channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def lay_for_inference(images: Tensor) -> Tensor:
    """Lay images (N, C, H, W) out channels last on a CPU, where most convolutional networks are a third faster."""
    on_cpu = images.device.type in ("cpu", "meta")  # FLOPs counted on the meta device are those of a CPU
    return images.contiguous(memory_format=torch.channels_last) if on_cpu else images


def lay_for_depthwise(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) out for depthwise convolutions: channels last on a CPU, else channels first.

    On a CPU that makes them twice as fast; on CUDA each of them would copy the map.
    """
    layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    return x.contiguous(memory_format=layout)
