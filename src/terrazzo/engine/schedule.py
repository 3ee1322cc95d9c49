"""Learning-rate schedules in closed form: the rate at a step depends on the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from terrazzo.errors import UserError, nearest

Curve = Callable[[float, int], float]  # (rate on entering, step since the beginning) -> rate


def poly(length: int, *, power: float = 1.0, eta_min: float = 0.0) -> Curve:
    """From the rate on entering down to `eta_min`, as (1 - t / T) ** power."""
    total = max(1, length - 1)
    return lambda rate, t: (rate - eta_min) * (1 - min(t, total) / total) ** power + eta_min


def linear(length: int, *, start_factor: float = 1 / 3, end_factor: float = 1.0) -> Curve:
    """A factor that grows from `start_factor` to `end_factor`: the usual warm-up."""
    total = max(1, length - 1)
    return lambda rate, t: rate * (start_factor + (end_factor - start_factor) * min(t, total) / total)


def constant(length: int, *, factor: float = 1 / 3) -> Curve:
    """A factor that falls away at the end."""
    return lambda rate, t: rate * factor if t < length - 1 else rate


def cosine(length: int, *, T_max: int | None = None, eta_min: float = 0.0, eta_min_ratio: float | None = None) -> Curve:
    """Half a cosine from the rate on entering to `eta_min` (Loshchilov and Hutter, ICLR 2017)."""
    period = T_max or length

    def curve(rate: float, t: int) -> float:
        lowest = eta_min if eta_min_ratio is None else rate * eta_min_ratio
        return lowest + (rate - lowest) * (1 + math.cos(math.pi * min(t, length - 1) / period)) / 2

    return curve


def step(length: int, *, step_size: int, gamma: float = 0.1) -> Curve:
    """`gamma` times the rate after every `step_size` steps."""
    return lambda rate, t: rate * gamma ** (min(t, length - 1) // step_size)


def multi_step(length: int, *, milestones: Sequence[int], gamma: float = 0.1) -> Curve:
    """`gamma` times the rate at each milestone."""
    return lambda rate, t: rate * gamma ** sum(milestone <= min(t, length - 1) for milestone in milestones)


def exponential(length: int, *, gamma: float) -> Curve:
    """`gamma` times the rate at every step."""
    return lambda rate, t: rate * gamma ** min(t, length - 1)


CURVES: dict[str, Callable[..., Curve]] = {
    "PolyLR": poly,
    "LinearLR": linear,
    "ConstantLR": constant,
    "CosineAnnealingLR": cosine,
    "StepLR": step,
    "MultiStepLR": multi_step,
    "ExponentialLR": exponential,
}
FOREVER = 10**9


class Schedule:
    """Curves one after the other or on top of each other, each on its interval of steps (or epochs).

    `specs` are a config's `param_scheduler`; `base_rates` are the groups' rates in the config. Raises UserError for an
    unknown type or argument.
    """

    def __init__(
        self, specs: Sequence[dict[str, Any]], base_rates: Sequence[float], steps_per_epoch: int, max_steps: int
    ) -> None:
        self.base_rates = list(base_rates)
        self.steps_per_epoch = steps_per_epoch
        self.parts = [self._part(dict(spec), f"param_scheduler.{i}", max_steps) for i, spec in enumerate(specs)]

    def _part(self, options: dict[str, Any], where: str, max_steps: int) -> tuple[int, int, Curve]:
        """(first step, steps per unit, curve)."""
        kind = str(options.pop("type", "")).rpartition(".")[2]
        if kind not in CURVES:
            raise UserError(f"{where}: no schedule is called '{kind}'{nearest(kind, CURVES)}")
        by_epoch = options.pop("by_epoch", True)
        unit = self.steps_per_epoch if by_epoch else 1
        begin, end = options.pop("begin", 0), options.pop("end", None)
        if by_epoch and options.pop("convert_to_iter_based", False):
            begin, end, unit = begin * unit, None if end is None else end * unit, 1
        if end is None:
            end = FOREVER if kind in ("StepLR", "MultiStepLR", "ExponentialLR") else max(1, max_steps // unit)
        for key in ("verbose", "last_step", "param_name"):
            options.pop(key, None)
        try:
            return begin * unit, unit, CURVES[kind](max(1, end - begin), **options)
        except TypeError as problem:
            raise UserError(
                f"{where}: {kind} does not take these arguments: {str(problem).partition('() ')[2]}"
            ) from None

    def rates(self, step: int) -> list[float]:
        """The learning rate of each parameter group for optimizer step `step`, counted from 0."""
        rates = []
        for rate in self.base_rates:
            for first, unit, curve in self.parts:
                if step >= first:
                    rate = curve(rate, (step - first) // unit)
            rates.append(rate)
        return rates

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set the groups' rates for optimizer step `step`."""
        for group, rate in zip(optimizer.param_groups, self.rates(step), strict=True):
            group["lr"] = rate
