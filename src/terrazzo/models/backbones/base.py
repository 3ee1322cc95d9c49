"""The base of backbones, whose first stages can be frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from terrazzo.errors import UserError
from terrazzo.models.freezing import Freezable, named_parts

T = TypeVar("T", bound="Backbone")


class Backbone(Freezable):
    """A backbone of which training leaves the stem (`frozen_stages` from 0 on) and the first stages as they are.

    With `norm_eval` all batch norms keep their statistics. Raises UserError for more stages than there are.
    """

    # names of what comes before the stages, and of what belongs to a stage, with its number from {0} 0 and from {1} 1
    stem_parts: ClassVar[tuple[str, ...]] = ()
    stage_parts: ClassVar[tuple[str, ...]] = ()
    frozen_stages = -1
    norm_eval = False
    stages: Any
    out_indices: Sequence[int]

    def __init__(self, *, frozen_stages: int = -1) -> None:
        super().__init__()
        self.frozen_stages = frozen_stages

    @property
    def frozen(self) -> list[str]:  # type: ignore[override]
        """The names of the parts that `frozen_stages` freezes."""
        names = list(self.stem_parts) if self.frozen_stages >= 0 else []
        for index in range(self.frozen_stages):
            parts = [part.format(index, index + 1) for part in self.stage_parts]
            if not any(named_parts(self, part) for part in parts):
                raise UserError(
                    f"frozen_stages={self.frozen_stages}: {type(self).__name__} has {index} stages that can be frozen; "
                    "`freeze: [backbone]` freezes all of it, `freeze: [backbone.PART]` any part"
                )
            names += parts
        return names

    def train(self: T, mode: bool = True) -> T:
        super().train(mode)
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
