"""How weights start."""

from __future__ import annotations

import math

from torch import nn


def init_convolutions(module: nn.Module) -> None:
    """Start every convolution inside at a normal of deviation sqrt(2 / fan out) and zero bias; groups share the fan."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
