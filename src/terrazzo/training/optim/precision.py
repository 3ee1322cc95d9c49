"""Mixed precision, gradient scaling and clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from terrazzo.arguments import check_arguments
from terrazzo.errors import UserError

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """float32, or autocast to bf16 or fp16 (with scaled gradients); "auto" chooses the better one for the device."""

    def __init__(self, device: torch.device, amp: str | bool | None) -> None:
        if amp is True or amp == "auto":
            amp = "bf16" if device.type == "cpu" or torch.cuda.is_bf16_supported() else "fp16"
        if amp and amp not in TYPES:
            raise UserError(f"amp '{amp}' is neither bf16 nor fp16")
        self.device = device
        self.name = amp or None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    def __str__(self) -> str:
        return f"mixed precision {self.name}" if self.name else "float32"

    def autocast(self) -> torch.autocast:
        """The context that the forward pass runs in."""
        dtype = TYPES[str(self.name)] if self.name else None
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name is not None)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, scaled where the type needs it."""
        self.scaler.scale(loss).backward()

    def update(self, optimizer: Optimizer, model: nn.Module, clip: dict[str, Any] | None) -> None:
        """Clip the gradients according to a config's `clip_grad`, then step."""
        if clip:
            self.scaler.unscale_(optimizer)
            options = dict(clip)
            by_value = options.pop("type", "norm") == "value"
            function = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            check_arguments(function, {"parameters": []} | options, "clip_grad", "optim_wrapper")
            function(model.parameters(), **options)
        self.scaler.step(optimizer)
        self.scaler.update()
