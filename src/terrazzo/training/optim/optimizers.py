"""Our own optimizers: Muon with AdamW, and AdamW without a schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the iteration, chosen for its slope at zero


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


class MuonWithAdamW(GroupOptimizer):
    """Muon for weights of two or more dimensions, a convolution's as the matrix (out, rest); AdamW for all others.

    `torch.optim.Muon` takes two-dimensional parameters only; this one optimizes a whole model. Steps are scaled by
    0.2 * sqrt(max(rows, columns)), so that `lr` and `weight_decay` are those of AdamW (Liu et al., "Muon is scalable
    for LLM training", 2025).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "steps": steps}
        super().__init__(params, defaults | {"betas": tuple(betas), "eps": eps})

    def update(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                is_matrix = parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) > 1
                direction = self._orthogonal if is_matrix else self._adam
                parameter.add_(direction(parameter, group), alpha=-group["lr"])

    def _orthogonal(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(state["momentum"], group["momentum"]) if group["nesterov"] else state["momentum"]
        matrix = orthogonalise(update.flatten(1), group["steps"])
        return (0.2 * max(matrix.shape) ** 0.5) * matrix.view_as(parameter)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient, (first, second) = self.state[parameter], parameter.grad, group["betas"]
        assert gradient is not None
        if not state:
            state["step"] = torch.tensor(0.0)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        count = state["step"].item()
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        deviation = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
        return state["mean"] / (1 - first**count) / deviation


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with singular values about 1, by Newton-Schulz iteration in bf16 on a GPU."""
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    wide = x.shape[0] > x.shape[1]
    x = x.T if wide else x
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if wide else x).to(matrix.dtype)


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
