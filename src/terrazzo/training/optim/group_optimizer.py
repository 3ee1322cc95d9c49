"""The loop over parameter groups that our own optimizers share."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer


class GroupOptimizer(Optimizer):
    """An optimizer that updates its groups of parameters one by one."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            self.update(group)

    def update(self, group: dict[str, Any]) -> None:
        """Update the parameters of one group."""
        raise NotImplementedError
