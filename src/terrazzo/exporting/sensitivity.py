"""Layers that lose most in 8 bits, measured on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terrazzo.exporting.graph import Graph

LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.inference_mode()
def layer_errors(graph: Graph, images: Sequence[np.ndarray]) -> dict[str, float]:
    """The error of each layer, by its name in the graph, when its input and weight have 8 bits; largest first.

    It is the squared error of a channel in its variance, the mean over channels: 0 is none, 1 as large as the signal.
    """
    found: dict[str, list[float]] = {}
    busy = False

    def measure(name: str) -> Callable[..., None]:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal busy
            if busy:
                return
            busy = True
            try:
                weight = in_8_bits(layer.weight.flatten(1), symmetric=True).view_as(layer.weight)
                found.setdefault(name, []).append(
                    relative_error(
                        torch.func.functional_call(layer, {"weight": weight}, (in_8_bits(inputs[0]),)),
                        output,
                        -1 if isinstance(layer, nn.Linear) else 1,
                    )
                )
            finally:
                busy = False

        return hook

    handles = [
        module.register_forward_hook(measure(name)) for name, module in graph.named_modules() if type_of_layer(module)
    ]
    try:
        for image in images:
            graph(torch.from_numpy(image))
    finally:
        for handle in handles:
            handle.remove()
    errors = {name: float(np.mean(values)) for name, values in found.items()}
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def type_of_layer(module: Any) -> bool:
    """Return True for a layer of learned products that one tensor enters."""
    return isinstance(module, LAYERS) and isinstance(getattr(module, "weight", None), nn.Parameter)


def in_8_bits(x: Tensor, symmetric: bool = False) -> Tensor:
    """The values after a way through 8-bit integers; `symmetric` for each row of its own, else one range for all."""
    if symmetric:
        scale = x.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        return (x / scale).round() * scale
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low).clamp(min=1e-12) / 255
    return ((x - low) / scale).round() * scale + low


def relative_error(found: Tensor, exact: Tensor, channel: int) -> float:
    """The mean over channels of squared error in variance, at most 1 each."""
    found, exact = found.movedim(channel, 0).flatten(1), exact.movedim(channel, 0).flatten(1)
    error = (found - exact).square().mean(1)
    return float((error / exact.var(1, correction=0).clamp(min=1e-12)).clamp(max=1).mean())
