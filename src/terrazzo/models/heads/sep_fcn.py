"""Fast-SCNN head (Poudel et al., BMVC 2019): an FCNHead whose convolutions are depthwise separable."""

from __future__ import annotations

from typing import Any

from torch import nn

from terrazzo.models.heads.fcn import FCNHead
from terrazzo.models.layers import DepthwiseSeparableConvBlock, Spec
from terrazzo.registry import MODELS


@MODELS.register
class DepthwiseSeparableFCNHead(FCNHead):
    """Fast-SCNN head (Poudel et al., BMVC 2019): an FCNHead whose convolutions are depthwise separable."""

    def __init__(self, *, dw_act_cfg: Spec | None = None, **kwargs: Any) -> None:
        self.dw_act_cfg = dw_act_cfg  # before the parent, whose convolutions need it
        super().__init__(**kwargs)

    def layer(self, in_channels: int, **options: Any) -> nn.Module:
        """A separable convolution, with `dw_act_cfg` between its two parts."""
        options |= {"norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg, "dw_act_cfg": self.dw_act_cfg}
        return DepthwiseSeparableConvBlock(in_channels, self.channels, **options)
