"""AdamW without a schedule ("The Road Less Scheduled", Defazio et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from terrazzo.training.optim.group_optimizer import GroupOptimizer


class AdamWScheduleFree(GroupOptimizer):
    """AdamW whose gradients are taken between the fast iterate and its running average; the average is the result.

    While training, parameters hold the point where gradients are taken; `eval()` replaces it by the average and
    `train()` restores it. The learning rate stays constant after `warmup_steps`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "r": r}
        progress = {"warmup_steps": warmup_steps, "weight_lr_power": weight_lr_power, "steps": 0, "largest_lr": 0.0}
        super().__init__(params, defaults | progress | {"weight_sum": 0.0, "training": True})

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average into the parameters."""
        self._move(lambda beta: 1 - 1 / beta, training=False)

    @torch.no_grad()
    def train(self) -> None:
        """Put the point where gradients are taken into the parameters."""
        self._move(lambda beta: 1 - beta, training=True)

    def _move(self, share: Callable[[float], float], training: bool) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for parameter in group["params"]:
                    if "fast" in self.state[parameter]:
                        parameter.lerp_(self.state[parameter]["fast"], share(group["betas"][0]))

    def update(self, group: dict[str, Any]) -> None:
        (first, second), count = group["betas"], group["steps"] + 1
        warm = min(1.0, count / max(1, group["warmup_steps"]))
        rate = group["lr"] * warm * (1 - second**count) ** 0.5
        group["largest_lr"] = max(rate, group["largest_lr"])
        weight = count ** group["r"] * group["largest_lr"] ** group["weight_lr_power"]
        group["weight_sum"] += weight
        share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["fast"], state["square"] = parameter.clone(), torch.zeros_like(parameter)
            state["square"].lerp_(parameter.grad.square(), 1 - second)
            direction = parameter.grad / state["square"].sqrt().add_(group["eps"])
            direction.add_(parameter, alpha=group["weight_decay"])
            parameter.lerp_(state["fast"], share)
            parameter.add_(direction, alpha=rate * (first * (1 - share) - 1))
            state["fast"].sub_(direction, alpha=rate)
        group["steps"] = count


@contextmanager
def averaged(optimizer: Optimizer) -> Iterator[None]:
    """Let parameters hold the average inside; afterwards they are restored to the bit."""
    if not isinstance(optimizer, AdamWScheduleFree):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    points = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for parameter, point in zip(parameters, points, strict=True):
                parameter.copy_(point)
