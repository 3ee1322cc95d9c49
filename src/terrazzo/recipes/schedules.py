"""How recipes learn: optimizers in their wrappers, and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from terrazzo.recipes.plan import Plan

Part = dict[str, Any]


def wrapper(optimizer: Part, **options: Any) -> Part:
    return {"type": "OptimWrapper", "optimizer": optimizer, **options}


def mixed(optimizer: Part, **options: Any) -> Part:
    """Mixed precision."""
    return {"type": "AmpOptimWrapper", "optimizer": optimizer, **options}


def sgd(rate: float = 0.01, decay: float = 0.0005) -> Part:
    return {"type": "SGD", "lr": rate, "momentum": 0.9, "weight_decay": decay}


def adamw(rate: float, decay: float, **options: Any) -> Part:
    return {"type": "AdamW", "lr": rate, "betas": [0.9, 0.999], "weight_decay": decay, **options}


def clip(norm: float) -> Part:
    return {"clip_grad": {"max_norm": norm, "norm_type": 2}}


def keys(**settings: Part) -> Part:
    """Learning rates and decays of parameters by parts of their names."""
    return {"paramwise_cfg": {"custom_keys": settings}}


def no_decay(*names: str) -> Part:
    return keys(**{name: {"decay_mult": 0.0} for name in names})


def usual_optimizer(plan: Plan) -> Part:
    """SGD, in mixed precision for the option `amp`; AdamW for the option `adamw`."""
    if "adamw" in plan.words.options:
        return wrapper({"type": "AdamW", "lr": 0.0005, "weight_decay": 0.05}, **clip(1))
    optimizer = sgd(0.004, 0.0001) if plan.data.gentle else sgd()
    return plain(plan, optimizer)


def plain(plan: Plan, optimizer: Part) -> Part:
    """An optimizer as it is, or in mixed precision for the option `amp`."""
    if "amp" in plan.words.options:
        return mixed(optimizer, loss_scale=512.0)
    return wrapper(optimizer, clip_grad=None)


def poly(plan: Plan, eta_min: float = 1e-4, power: float = 0.9, warmup: int = 0, start: float = 0.1) -> list[Part]:
    """A polynomial down to `eta_min`, after a linear warm-up from `start` times the rate."""
    step = {"by_epoch": False}
    first = [{"type": "LinearLR", "start_factor": start, "begin": 0, "end": warmup, **step}] if warmup else []
    decay = {"type": "PolyLR", "eta_min": eta_min, "power": power, "begin": warmup, "end": plan.iterations, **step}
    return [*first, decay]


def transformer_schedule(plan: Plan, warmup: int = 1500) -> list[Part]:
    """Linear up from nearly nothing, then linear down to nothing."""
    return poly(plan, 0.0, 1.0, warmup, 1e-6)


def steps(plan: Plan, fractions: Iterable[float] = (0.75, 0.9)) -> list[Part]:
    """Ten times slower after each fraction of the run."""
    milestones = [round(plan.iterations * fraction) for fraction in fractions]
    return [
        {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": 1000, "by_epoch": False},
        {"type": "MultiStepLR", "begin": 1000, "end": plan.iterations, "milestones": milestones, "by_epoch": False},
    ]


def usual_schedule(plan: Plan) -> list[Part]:
    return steps(plan) if "adamw" in plan.words.options else poly(plan)
