"""Activations, built from an `act_cfg` such as `{"type": "ReLU"}`."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.layers.spec import Spec, kind_of


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ScaledHardSigmoid(nn.Module):
    """The gate of mobile networks: min(max((x + bias) / divisor, min_value), max_value)."""

    def __init__(self, bias: float = 3.0, divisor: float = 6.0, min_value: float = 0.0, max_value: float = 1.0) -> None:
        super().__init__()
        self.bias, self.divisor, self.min_value, self.max_value = bias, divisor, min_value, max_value

    def forward(self, x: Tensor) -> Tensor:
        return ((x + self.bias) / self.divisor).clamp(self.min_value, self.max_value)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": nn.PReLU,
    "RReLU": nn.RReLU,
    "ReLU6": nn.ReLU6,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "QuickGELU": QuickGELU,
    "SiLU": nn.SiLU,
    "Swish": nn.SiLU,
    "Mish": nn.Mish,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "HSigmoid": ScaledHardSigmoid,
    "HSwish": nn.Hardswish,
}


def build_activation(act_cfg: Spec) -> nn.Module:
    """Build an activation, in place where it can be. Raises UserError for an unknown type."""
    kind = kind_of(act_cfg)
    if kind not in ACTIVATIONS:
        raise UserError(f"act_cfg: no activation is called '{kind}'{nearest(str(kind), ACTIVATIONS)}")
    layer = ACTIVATIONS[kind]
    options = {key: value for key, value in act_cfg.items() if key != "type"}
    if "inplace" in inspect.signature(layer).parameters:
        options.setdefault("inplace", True)
    else:
        options.pop("inplace", None)
    return layer(**options)
