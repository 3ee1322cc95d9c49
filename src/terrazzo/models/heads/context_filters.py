"""Heads that put several adaptive contexts beside their input: APCNet and DMNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features


class ContextsHead(DecodeHead):
    """The input and several maps made of it, fused; a subclass adds the modules that make them."""

    def add_contexts(self, name: str, modules: Sequence[nn.Module]) -> None:
        """Add the modules under a name, and the convolution that fuses their outputs with the input."""
        self.context_name = name
        self.add_module(name, nn.ModuleList(modules))
        fused = self.in_channels + len(modules) * self.channels
        self.bottleneck = self.conv_block(fused, self.channels, 3, padding=1)

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        return self.bottleneck(torch.cat([x, *(module(x) for module in getattr(self, self.context_name))], dim=1))
