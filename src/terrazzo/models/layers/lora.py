"""Low-rank adaptation: small trained changes of frozen weights, which are added to them when a model is saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

RANK = 8
SCALE = 2.0  # of the change: LoRA's alpha over its rank


class LowRankChange(nn.Module):
    """weight + SCALE * up @ down (Hu et al., LoRA, ICLR 2022); no change at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + SCALE * (self.up @ self.down).view_as(weight)


def add_low_rank(model: nn.Module, rank: int = RANK, without: Sequence[nn.Module] = ()) -> int:
    """Freeze a model, and train low-rank changes of its linear layers and convolutions; return how many there are.

    The parts in `without` get none.
    """
    others = {module for part in without for module in part.modules()}
    layers = [(module, name) for module in model.modules() if module not in others for name in matrices(module, rank)]
    model.requires_grad_(False)
    for module, name in layers:
        parametrize.register_parametrization(module, name, LowRankChange(getattr(module, name), rank))
    return len(layers)


def matrices(module: nn.Module, rank: int) -> Iterator[str]:
    """The names of a layer's weights that are matrices of more than `rank` rows and columns."""
    names = {nn.MultiheadAttention: "in_proj_weight", nn.Linear: "weight", nn.Conv2d: "weight"}
    for kind, name in names.items():
        weight = getattr(module, name, None) if isinstance(module, kind) else None
        if isinstance(weight, Tensor) and min(weight.shape[0], weight[0].numel()) > rank:
            yield name


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model, the low-rank changes added to the weights that they change."""
    weights: dict[str, Tensor] = model.state_dict()
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for name, parts in module.parametrizations.items():
            own = f"{path}.{name}".lstrip(".")
            for inner in parts.state_dict():
                del weights[f"{path}.parametrizations.{name}.{inner}".lstrip(".")]
            weights[own] = getattr(module, name).detach()
    return weights
