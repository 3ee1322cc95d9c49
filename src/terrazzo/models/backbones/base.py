"""The base of backbones of which parts can be frozen, and of those that are a row of stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T", bound="FreezableBackbone")


class FreezableBackbone(nn.Module):
    """In training, `frozen_parts` keep their weights and statistics, and with `norm_eval` all batch norms theirs."""

    norm_eval = False
    stages: Any
    out_indices: Sequence[int]

    def frozen_parts(self) -> Iterable[nn.Module]:
        """The modules that stay as they are."""
        return ()

    def freeze(self) -> None:
        """Put the frozen parts into evaluation mode, without gradients."""
        for module in self.frozen_parts():
            module.eval().requires_grad_(False)

    def train(self: T, mode: bool = True) -> T:
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def run_stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """Apply the modules named in `stages` one after the other -> the maps after those in `out_indices`."""
        outputs = []
        for index, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
