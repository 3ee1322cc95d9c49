"""DNLNet head (Yin et al., ECCV 2020); `temperature` sharpens the pairwise part."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.models.heads.fcn_context import FCNContextHead
from terrazzo.models.layers import Spec
from terrazzo.models.layers.context_block import DisentangledNonLocal
from terrazzo.registry import MODELS


@MODELS.register
class DNLHead(FCNContextHead):
    """DNLNet head (Yin et al., ECCV 2020); `temperature` sharpens the pairwise part."""

    def __init__(
        self,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        options: Spec = {"reduction": reduction, "use_scale": use_scale, "mode": mode, "temperature": temperature}
        options |= {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg}
        self.dnl_block = DisentangledNonLocal(self.channels, **options)

    def context(self, x: Tensor) -> Tensor:
        return self.dnl_block(x)
