"""Non-local networks' head (Wang et al., CVPR 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.models.heads.fcn_context import FCNContextHead
from terrazzo.models.layers import Spec
from terrazzo.models.layers.context_block import NonLocal
from terrazzo.registry import MODELS


@MODELS.register
class NLHead(FCNContextHead):
    """Non-local networks' head (Wang et al., CVPR 2018)."""

    def __init__(
        self, *, reduction: int = 2, use_scale: bool = True, mode: str = "embedded_gaussian", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        style: Spec = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg}
        self.nl_block = NonLocal(self.channels, reduction=reduction, use_scale=use_scale, mode=mode, **style)

    def context(self, x: Tensor) -> Tensor:
        return self.nl_block(x)
