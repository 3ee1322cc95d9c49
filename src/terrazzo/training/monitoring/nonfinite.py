"""Losses and gradients that are not finite, found in the step in which they arise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from terrazzo.errors import UserError
from terrazzo.sample import Batch
from terrazzo.system.process_group import ProcessGroup
from terrazzo.training.monitoring.log import RunLog


class NonFiniteGuard:
    """Checks every step's loss and gradients; up to `allowed` bad steps are skipped, the next one ends the run."""

    def __init__(self, model: nn.Module, allowed: int, log: RunLog, group: ProcessGroup) -> None:
        self.model, self.allowed, self.log, self.group = model, allowed, log, group
        self.skipped = 0

    def accepts(self, broken: list[str], step: int, rate: float, batch: Batch, replay: Callable[[Batch], Any]) -> bool:
        """Return whether all values are finite in every process; a bad step is counted and logged.

        `broken` names the values of this process that are not. `replay` repeats the forward pass, to find the first
        module concerned. Raises UserError for one bad step too many.
        """
        if not self.group.any(bool(broken)):
            return True
        self.skipped += 1
        files = ", ".join(str(sample.image_path) for sample in batch.samples)
        what = ", ".join(broken[:3]) or "in another process"
        origin = first_broken(self.model, lambda: replay(batch)) if broken else None
        source = f"; the first tensor that is not finite comes out of {origin}" if origin else ""
        found = f"NaN or Inf at step {step} ({what}{source}; learning rate {rate:.3g}; batch: {files})"
        if self.skipped > self.allowed:
            raise UserError(
                f"{found}. Lower the learning rate, clip gradients (optim_wrapper.clip_grad), check these files; "
                "`skip_nan: N` skips up to N such steps"
            )
        self.log.info(f"warning: {found}: step skipped, {self.skipped} of at most {self.allowed}")
        return False


def broken_losses(losses: Mapping[str, Tensor], total: Tensor) -> list[str]:
    """The losses that are not finite, with their values; a step whose sum (`total`) is finite has none."""
    if bool(total.isfinite()):
        return []
    names = [name for name, value in losses.items() if "loss" in name and not bool(value.isfinite())]
    return [f"{name} is {float(losses[name].detach())}" for name in names] or [f"their sum is {float(total.detach())}"]


def broken_gradients(model: nn.Module) -> list[str]:
    """The parameters whose gradients are not finite."""
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if not gradients or bool(get_total_norm(gradients.values()).isfinite()):
        return []
    return [f"gradient of {name}" for name, value in gradients.items() if not bool(value.isfinite().all())]


@torch.no_grad()
def first_broken(model: nn.Module, replay: Callable[[], Any]) -> str | None:
    """The first module whose output is not finite when `replay` runs the model; None if every output is finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, (list, tuple)) else [output]
            tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
            if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        replay()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
