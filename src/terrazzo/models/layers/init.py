"""Starting values of weights."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def init_zeros(layer: nn.Module) -> None:
    """Start weight and bias of a layer at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def init_normal(layer: _ConvNd, std: float) -> None:
    """Start a convolution at a normal of deviation `std` and a zero bias."""
    nn.init.normal_(layer.weight, std=std)
    zero_bias(layer.bias)


def init_kaiming(layer: _ConvNd) -> None:
    """Start a convolution before a ReLU at a normal of deviation sqrt(2 / fan out) (He et al., ICCV 2015)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def init_truncated(layer: _ConvNd | nn.Linear, std: float = 0.02) -> None:
    """Start a layer at a truncated normal of deviation `std` and a zero bias."""
    nn.init.trunc_normal_(layer.weight, std=std)
    zero_bias(layer.bias)


def init_convolutions(module: nn.Module) -> None:
    """Start every convolution inside at a normal of deviation sqrt(2 / fan out) and zero bias; groups share the fan."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            init_normal(layer, math.sqrt(2 / fan_out))


def init_transformer(module: nn.Module, std: float = 0.02) -> None:
    """Start every linear layer inside at a truncated normal of deviation `std` and a zero bias, as ViT does."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init_truncated(layer, std)


def zero_bias(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
