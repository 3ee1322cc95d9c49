"""Muon: orthogonal steps for matrices (Jordan et al., 2024), with AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from terrazzo.training.optim.group_optimizer import GroupOptimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the iteration, chosen for its slope at zero


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
