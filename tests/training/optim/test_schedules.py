"""Learning rates at every step, equal to those measured with mmengine 0.10.7 (base rate 1)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.training_facts import LEARNING_RATES
from terrazzo.errors import UserError
from terrazzo.training.optim.schedule import Schedule


def rates(specs, count: int, steps_per_epoch: int = 1, total: int = 100, base: float = 1.0) -> list[float]:
    specs = [{"by_epoch": False} | spec for spec in ([specs] if isinstance(specs, dict) else specs)]
    schedule = Schedule(specs, [base], steps_per_epoch, total)
    return [schedule.rates(step)[0] for step in range(count)]


def poly(begin, end, **options):
    return {"type": "PolyLR", "begin": begin, "end": end, **options}


def linear(begin, end, start_factor):
    return {"type": "LinearLR", "begin": begin, "end": end, "start_factor": start_factor}


MEASURED = {
    "poly": (
        poly(0, 10, power=0.9, eta_min=1e-4),
        [1.0, 0.89943, 0.79759, 0.69428, 0.58923, 0.48204, 0.3721, 0.25836, 0.1385, 0.0001, 0.0001],
    ),
    "linear": (linear(0, 5, 0.1), [0.1, 0.325, 0.55, 0.775, 1, 1]),
    "warm-up, then poly": (
        [linear(0, 4, 0.1), poly(4, 12, power=1.0)],
        [0.1, 0.4, 0.7, 1, 1, 0.85714, 0.71429, 0.57143, 0.42857, 0.28571, 0.14286, 0],
    ),
    "warm-up over poly": (
        [linear(0, 4, 0.1), poly(0, 12, power=1.0)],
        [0.1, 0.36364, 0.57273, 0.72727, 0.63636],
    ),
    "cosine": (
        {"type": "CosineAnnealingLR", "begin": 0, "end": 10, "eta_min": 0.1},
        [1, 0.97798, 0.91406, 0.8145, 0.68906, 0.55, 0.41094, 0.2855, 0.18594, 0.12202, 0.12202],
    ),
    "step": ({"type": "StepLR", "step_size": 3, "gamma": 0.5}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    "step between": (
        {"type": "StepLR", "step_size": 3, "gamma": 0.5, "begin": 2, "end": 9},
        [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25],
    ),
    "milestones": (
        {"type": "MultiStepLR", "milestones": [3, 6], "gamma": 0.5, "begin": 1},
        [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25],
    ),
    "constant": (
        {"type": "ConstantLR", "factor": 0.3, "begin": 2, "end": 6},
        [1, 1, 0.3, 0.3, 0.3, 1],
    ),
    "exponential": (
        {"type": "ExponentialLR", "gamma": 0.9, "begin": 2, "end": 6},
        [1, 1, 1, 0.9, 0.81, 0.729, 0.729],
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_equal_to_mmengine(name):
    specs, expected = MEASURED[name]
    assert rates(specs, len(expected)) == pytest.approx(expected, abs=6e-6)


def test_a_rate_depends_on_the_step_alone():
    schedule = Schedule([linear(0, 4, 0.1) | {"by_epoch": False}], [1.0], 1, 10)
    forwards = [schedule.rates(step)[0] for step in range(8)]
    assert [schedule.rates(step)[0] for step in reversed(range(8))] == forwards[::-1]


def test_by_epoch_the_rate_stays_within_an_epoch():
    specs = {"type": "StepLR", "step_size": 1, "gamma": 0.5, "by_epoch": True}
    assert rates(specs, 6, steps_per_epoch=2) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_epochs_converted_to_steps():
    spec = poly(0, 2, power=1.0) | {"by_epoch": True, "convert_to_iter_based": True}
    assert rates(spec, 6, steps_per_epoch=3) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])


def test_without_an_end_a_curve_takes_the_whole_run():
    spec = {"type": "PolyLR", "power": 1.0}
    assert rates(spec, 5, total=5) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_every_group_keeps_its_ratio():
    schedule = Schedule([linear(0, 5, 0.1) | {"by_epoch": False}], [1.0, 0.1], 1, 5)
    weight = torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [weight], "lr": 1.0}, {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule.apply(optimizer, 1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.325, 0.0325])


def test_no_schedule_keeps_the_rate():
    assert rates([], 3, base=0.2) == [0.2] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "PolyLRR"}, r"'PolyLRR' at param_scheduler.0.*'PolyLR'"),
        ({"type": "PolyLR", "pover": 2}, "PolyLR at param_scheduler.0 .*pover"),
        ({"type": "StepLR"}, "StepLR at param_scheduler.0 .*step_size"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        rates(spec, 1)


@pytest.mark.parametrize("fact", LEARNING_RATES, ids=lambda fact: Path(fact["config"]).stem)
def test_rates_of_the_official_schedules_equal_golden(fact):
    """Every distinct schedule of the official 1.x configs, at its turning points and in between."""
    schedule = Schedule(fact["schedule"], [fact["lr"]], 1000, fact["steps"])
    rates = [schedule.rates(step)[0] for step in fact["at"]]
    assert rates == pytest.approx(fact["rates"], rel=1e-6, abs=1e-12)
