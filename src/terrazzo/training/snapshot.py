"""Everything that training continues from: collected into one dict, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from terrazzo.errors import UserError
from terrazzo.system.process_group import ProcessGroup
from terrazzo.training.distributed.parallel import gathered, sharded_like
from terrazzo.training.optim.ema import EMA
from terrazzo.training.optim.precision import Precision


def collect_state(
    model: nn.Module, optimizer: Optimizer, precision: Precision, ema: EMA | None, group: ProcessGroup
) -> dict[str, Any]:
    """Collect weights, moments, accumulated gradients and random states; every process calls it."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_type": type(optimizer).__name__,
        "scaler": precision.scaler.state_dict(),
        "ema": ema.average.state_dict() if ema is not None else None,
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
    }
    return gathered(state) | {"random": group.gather(random_state())}


def restore_state(
    state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, precision: Precision, ema: EMA | None
) -> None:
    """Restore a collected state. Raises UserError if the model or the optimizer is another one."""
    kind = type(optimizer).__name__
    if state["optimizer_type"] != kind:
        raise UserError(f"the saved state is of the optimizer {state['optimizer_type']}, not {kind}: {START_OVER}")
    try:
        load_weights(model, state["model"])
        optimizer.load_state_dict(sharded_moments(state["optimizer"], optimizer))
    except (RuntimeError, ValueError, KeyError) as problem:
        details = " ".join(str(problem).split())
        raise UserError(f"the saved state does not fit this config ({details[:300]}): {START_OVER}") from None
    if precision.name == "fp16" and state["scaler"]:
        precision.scaler.load_state_dict(state["scaler"])
    if ema is not None:
        load_weights(ema.average, state["ema"] or state["model"])
    for name, parameter in model.named_parameters():
        if name in state["gradients"]:
            parameter.grad = sharded_like(state["gradients"][name].to(parameter.device), parameter)


START_OVER = "resume with the config.yaml of the work dir, or train in another --work-dir"


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load whole weights into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict({name: sharded_like(value, own.get(name, value)) for name, value in weights.items()})


def sharded_moments(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's whole state, each moment sharded as its parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {
            name: sharded_like(value, parameters[index])
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    return {**state, "state": moments}


def random_state() -> dict[str, Any]:
    """The state of torch's generators."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore the state of torch's generators."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def is_finite(model: nn.Module) -> bool:
    """Return whether every weight and every running statistic is finite."""
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())
