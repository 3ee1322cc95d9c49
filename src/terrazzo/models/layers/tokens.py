"""Tokens and maps, and how they lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int]


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens (N, h * w, C) seen as a map (N, C, h, w) in channels-last memory, without a copy."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_tokens(x: Tensor) -> Tensor:
    """A map (N, C, h, w) as tokens (N, h * w, C); without a copy from channels-last memory."""
    return x.flatten(2).transpose(1, 2)


def lay_for_inference(images: Tensor) -> Tensor:
    """Images (N, C, H, W) channels last on a CPU, where most convolutional networks then take up to a third less."""
    on_cpu = images.device.type in ("cpu", "meta")  # what is counted on the meta device stands for a CPU
    return images.contiguous(memory_format=torch.channels_last) if on_cpu else images


def lay_for_depthwise(x: Tensor) -> Tensor:
    """A map (N, C, H, W) laid out as depthwise convolutions want it: channels last on a CPU, else channels first.

    On a CPU they are twice as fast so; CUDA's would copy the map at every one of them.
    """
    layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    return x.contiguous(memory_format=layout)
