"""Heads of networks with several branches: DDRNet and PIDNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from terrazzo.models.layers import ConvBlock, Spec, build_activation, build_norm


def refine(in_channels: int, channels: int, *, norm_cfg: Spec, act_cfg: Spec, **options: Any) -> list[nn.Module]:
    """Norm, activation and 3x3 convolution, then norm and activation again."""
    options |= {"norm_cfg": norm_cfg, "act_cfg": act_cfg, "order": ("norm", "act", "conv")}
    conv = ConvBlock(in_channels, channels, 3, padding=1, **options)
    return [conv, build_norm(norm_cfg, channels), build_activation(act_cfg)]
