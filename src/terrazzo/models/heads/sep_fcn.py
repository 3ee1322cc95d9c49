"""Fully convolutional head of separable convolutions."""

from __future__ import annotations

from typing import Any

from torch import nn

from terrazzo.models.heads.fcn import FCNHead
from terrazzo.models.layers import DepthwiseSeparableConvBlock
from terrazzo.registry import MODELS


@MODELS.register
class DepthwiseSeparableFCNHead(FCNHead):
    """Fast-SCNN head (Poudel et al., BMVC 2019): an FCNHead whose convolutions are depthwise separable."""

    def __init__(self, *, dw_act_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.dw_act_cfg = dw_act_cfg  # before the parent, whose convolutions need it
        super().__init__(**kwargs)

    def conv_block(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> nn.Module:
        """A separable convolution with the head's norm and activation; `dw_act_cfg` stands between its two parts."""
        options = {"norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg, "dw_act_cfg": self.dw_act_cfg} | options
        return DepthwiseSeparableConvBlock(in_channels, out_channels, kernel_size, **options)
