"""GCNet head (Cao et al., ICCVW 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from terrazzo.models.heads.fcn_context import FCNContextHead
from terrazzo.models.layers.context_block import ContextBlock
from terrazzo.registry import MODELS


@MODELS.register
class GCHead(FCNContextHead):
    """GCNet head (Cao et al., ICCVW 2019)."""

    def __init__(
        self,
        *,
        ratio: float = 1 / 4,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gc_block = ContextBlock(self.channels, ratio=ratio, pooling_type=pooling_type, fusion_types=fusion_types)

    def context(self, x: Tensor) -> Tensor:
        return self.gc_block(x)
