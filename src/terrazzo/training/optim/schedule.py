"""Learning-rate schedules in closed form: the rate depends only on the step."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from terrazzo.arguments import check_arguments, check_keys, located, placed
from terrazzo.config.experiment import Target
from terrazzo.config.sections import instead
from terrazzo.errors import UserError, nearest
from terrazzo.metrics.base import flat_scores

Curve = Callable[[float, int], float]  # (rate on entering, step since the beginning) -> rate


def poly(rate: float, t: int, length: int, *, power: float = 1.0, eta_min: float = 0.0) -> float:
    """From the rate on entering down to `eta_min`, as (1 - t / T) ** power."""
    total = max(1, length - 1)
    return (rate - eta_min) * (1 - min(t, total) / total) ** power + eta_min


def linear(rate: float, t: int, length: int, *, start_factor: float = 1 / 3, end_factor: float = 1.0) -> float:
    """A factor that grows from `start_factor` to `end_factor`: the usual warm-up."""
    total = max(1, length - 1)
    return rate * (start_factor + (end_factor - start_factor) * min(t, total) / total)


def constant(rate: float, t: int, length: int, *, factor: float = 1 / 3) -> float:
    """A factor that ends with the interval."""
    return rate * factor if t < length - 1 else rate


def cosine(rate: float, t: int, length: int, *, T_max: int | None = None, eta_min: float = 0.0) -> float:
    """Half a cosine from the rate on entering to `eta_min` (Loshchilov and Hutter, ICLR 2017)."""
    return eta_min + (rate - eta_min) * (1 + math.cos(math.pi * min(t, length - 1) / (T_max or length))) / 2


def exponential_warmup(rate: float, t: int, length: int, *, start_factor: float) -> float:
    """A factor that grows from `start_factor` to 1 by the same ratio at every step."""
    total = max(1, length - 1)
    return rate * start_factor ** (1 - min(t, total) / total)


def cosine_restart(
    rate: float,
    t: int,
    length: int,
    *,
    periods: Sequence[int],
    restart_weights: Sequence[float] = (1,),
    eta_min: float = 0.0,
) -> float:
    """Half a cosine for each of `periods`, from `restart_weights` times the rate (Loshchilov and Hutter, ICLR 2017)."""
    if len(periods) != len(restart_weights):
        raise UserError("CosineRestartLR: periods and restart_weights must have the same length")
    ends = list(itertools.accumulate(periods))
    which = min(bisect.bisect_right(ends, t), len(ends) - 1)
    share = min((t - ends[which] + periods[which]) / periods[which], 1)
    return eta_min + restart_weights[which] * (rate - eta_min) * (1 + math.cos(math.pi * share)) / 2


def step(
    rate: float, t: int, length: int, *, step_size: int, gamma: float = 0.1, eta_min: float | None = None
) -> float:
    """`gamma` times the rate after every `step_size` steps, not below `eta_min`."""
    return max(rate * gamma ** (min(t, length - 1) // step_size), -math.inf if eta_min is None else eta_min)


def multi_step(
    rate: float, t: int, length: int, *, milestones: Sequence[int], gamma: float = 0.1, eta_min: float | None = None
) -> float:
    """`gamma` times the rate at each milestone, not below `eta_min`."""
    passed = sum(mark <= min(t, length - 1) for mark in milestones)
    return max(rate * gamma**passed, -math.inf if eta_min is None else eta_min)


def exponential(rate: float, t: int, length: int, *, gamma: float) -> float:
    """`gamma` times the rate at every step."""
    return rate * gamma ** min(t, length - 1)


def inverse(rate: float, t: int, length: int, *, gamma: float, power: float = 1.0) -> float:
    """The rate over (1 + gamma * t) ** power."""
    return rate * (1 + gamma * t) ** -power


def anneal(start: float, end: float, share: float, strategy: str) -> float:
    """From `start` to `end` along half a cosine or a line."""
    if strategy == "linear":
        return start + (end - start) * share
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(
    rate: float,
    t: int,
    length: int,
    *,
    eta_max: float,
    total_steps: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> float:
    """Up to `eta_max` and down to nearly nothing (Smith and Topin, 2017); the optimizer's own rate does not count."""
    last = (total_steps or length) - 1
    low, lowest = eta_max / div_factor, eta_max / div_factor / final_div_factor
    top = pct_start * (last + 1) - 1
    marks = [(0.0, low), (top, eta_max), *([(2 * top, low)] if three_phase else []), (last, lowest)]
    which = next((i for i in range(1, len(marks)) if t <= marks[i][0]), len(marks) - 1)
    (begin, start), (end, goal) = marks[which - 1], marks[which]
    return anneal(start, goal, (min(t, end) - begin) / (end - begin), anneal_strategy)


def cyclic(
    rate: float,
    t: int,
    length: int,
    *,
    target_ratio: Sequence[float] | float = (10, 1e-4),
    cyclic_times: int = 1,
    step_ratio_up: float = 0.4,
    anneal_strategy: str = "cos",
    gamma: float = 1.0,
) -> float:
    """`cyclic_times` times up to `target_ratio[0]`, down to `target_ratio[1]` of the rate; peaks shrink by `gamma`."""
    ratios = (target_ratio, target_ratio / 1e5) if isinstance(target_ratio, (int, float)) else tuple(target_ratio)
    period = length // cyclic_times
    up = int(step_ratio_up * period)
    cycle, t = divmod(t, period)
    scale = gamma**cycle
    peak = 1 - scale + ratios[0] * scale
    if t < up:
        return anneal(rate, rate * peak, t / up, anneal_strategy)
    return anneal(rate * peak, rate * ratios[1], (t - up) / (period - up), anneal_strategy)


CURVES: dict[str, Callable[..., float]] = {
    "PolyLR": poly,
    "PolyLRRatio": poly,
    "LinearLR": linear,
    "ConstantLR": constant,
    "CosineAnnealingLR": cosine,
    "StepLR": step,
    "MultiStepLR": multi_step,
    "ExponentialLR": exponential,
    "ExponentialWarmupLR": exponential_warmup,
    "CosineRestartLR": cosine_restart,
    "InverseLR": inverse,
    "OneCycleLR": one_cycle,
    "CyclicLR": cyclic,
}
FOREVER = 10**9
IGNORED_KEYS = ("verbose", "last_step", "param_name")
INTERVAL_KEYS = ("by_epoch", "begin", "end", "eps", "convert_to_iter_based")
PLATEAU = "ReduceOnPlateauLR"


@dataclass
class Plateau:
    """A factor that falls by `factor` when a metric has not improved for more than `patience` validations."""

    monitor: str = "loss"
    rule: str = "less"  # or "greater"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_rule: str = "rel"  # or "abs"
    cooldown: int = 0
    min_value: float = 0.0
    scale: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)
    resting: int = field(default=0, init=False)

    @property
    def target(self) -> Target:
        """The score that decides."""
        return Target(self.monitor.rpartition("/")[2], self.rule == "less", f"{PLATEAU}.monitor")

    def note(self, result: Mapping[str, Any]) -> None:
        """Count a validation. Raises UserError if the metric is not among its results."""
        value = flat_scores(result).get(self.target.name)
        if value is None:
            raise UserError(f"{self.target.key}: validation has no '{self.target.name}', but {', '.join(result)}")
        if self.best is None or self._is_better(value, self.best):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.resting:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited > self.patience:
            self.scale, self.waited, self.resting = self.scale * self.factor, 0, self.cooldown

    def _is_better(self, value: float, best: float) -> bool:
        margin = abs(best) * self.threshold if self.threshold_rule == "rel" else self.threshold
        return value < best - margin if self.rule == "less" else value > best + margin


class Schedule:
    """Curves in sequence or on top of each other, each on its interval of steps (or epochs).

    `specs` are a config's `param_scheduler`; `base_rates` are the groups' rates in the config. Raises UserError for an
    unknown type or argument. A curve ends on the step before `end`; with `include_end=True`, on that step.
    """

    def __init__(
        self, specs: Sequence[dict[str, Any]], base_rates: Sequence[float], steps_per_epoch: int, max_steps: int
    ) -> None:
        self.base_rates = list(base_rates)
        self.steps_per_epoch = steps_per_epoch
        self.plateaus: list[Plateau] = []
        self.parts: list[tuple[int, int, Curve]] = []  # first step, steps per unit, curve
        for index, spec in enumerate(specs):
            check_keys(spec, spec, f"param_scheduler.{index}")
            options = {key: value for key, value in spec.items() if key not in IGNORED_KEYS}
            kind, where = str(options.pop("type", "")).rpartition(".")[2], f"param_scheduler.{index}"
            if kind == PLATEAU:
                options = {key: value for key, value in options.items() if key not in INTERVAL_KEYS}
                check_arguments(Plateau, options, kind, where, spec)
                self.plateaus.append(Plateau(**options))
            elif kind in CURVES:
                with placed(kind, where, spec):
                    self.parts.append(self._part(kind, options, where, max_steps, spec))
            else:
                text = f"no schedule is called '{kind}' at {where}{nearest(kind, [*CURVES, PLATEAU])}"
                raise UserError(located(spec, "type", f"{text}; {instead('schedules')}"))

    def _part(
        self, kind: str, options: dict[str, Any], where: str, max_steps: int, spec: Any = None
    ) -> tuple[int, int, Curve]:
        """Read a curve and its interval."""
        by_epoch, convert = options.pop("by_epoch", True), options.pop("convert_to_iter_based", False)
        unit = self.steps_per_epoch if by_epoch else 1
        begin, end = options.pop("begin", 0), options.pop("end", None)
        if by_epoch and convert:
            begin, end, unit = round(begin * unit), None if end is None else end * unit, 1
        if end is None:
            end = FOREVER if kind in ("StepLR", "MultiStepLR", "ExponentialLR") else max(1, max_steps // unit)
        end += bool(options.pop("include_end", False))
        options["length"] = max(1, end - begin)
        ratio = options.pop("eta_min_ratio", None)  # of the rate on entering
        options |= {"eta_min": 0.0} if ratio is not None else {}
        check_arguments(CURVES[kind], {"rate": 1.0, "t": 0} | options, kind, where, spec)

        def curve(rate: float, t: int) -> float:
            return CURVES[kind](rate, t, **(options if ratio is None else options | {"eta_min": rate * ratio}))

        curve(1.0, 0)  # raises UserError for values that do not fit together
        return begin * unit, unit, curve

    def rates(self, step: int) -> list[float]:
        """The learning rate of each parameter group for optimizer step `step`, counted from 0."""
        rates = []
        for rate in self.base_rates:
            for first, unit, curve in self.parts:
                if step >= first:
                    rate = curve(rate, (step - first) // unit)
            for plateau in self.plateaus:
                rate = max(plateau.min_value, rate * plateau.scale)
            rates.append(rate)
        return rates

    def note(self, result: Mapping[str, Any]) -> None:
        """Count a validation's metrics, on which `ReduceOnPlateauLR` depends."""
        for plateau in self.plateaus:
            plateau.note(result)

    def state(self) -> list[tuple[float, float | None, int, int]]:
        """The part of the schedule that depends on validations."""
        return [(plateau.scale, plateau.best, plateau.waited, plateau.resting) for plateau in self.plateaus]

    def load_state(self, state: Sequence[Any]) -> None:
        """Continue from a saved state."""
        for plateau, values in zip(self.plateaus, state, strict=False):
            plateau.scale, plateau.best, plateau.waited, plateau.resting = values

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set the groups' rates for optimizer step `step`."""
        for group, rate in zip(optimizer.param_groups, self.rates(step), strict=True):
            group["lr"] = rate
