"""FCN heads with a context module between their two convolutions: NLNet, DNLNet, GCNet and CCNet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terrazzo.models.heads.fcn import FCNHead


class FCNContextHead(FCNHead):
    """Convolution, `context`, convolution, with the input concatenated by `concat_input`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(num_convs=2, **kwargs)

    def context(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        raise NotImplementedError

    def convolve(self, x: Tensor) -> Tensor:
        reduce, refine = self.convs
        return refine(self.context(reduce(x)))
