"""Upgraded learning-rate curves equal what mmcv documents, at every step."""

import json
import math

import numpy as np
import pytest
import torch

from support.golden_configs import configs
from support.old_configs import old_config, upgraded
from terrazzo.config.experiment import make_experiment
from terrazzo.config.v0.upgrade import upgrade_config
from terrazzo.training.optim.schedule import Schedule


def mmcv_curve(config, base, length, epoch_length=None):
    """The rates of a whole run: `length` iterations, or epochs of `epoch_length` iterations."""
    by_epoch = config.get("by_epoch", epoch_length is not None)
    steps = length * (epoch_length or 1)
    t = np.arange(steps, dtype=np.float64)
    progress, end = (t // epoch_length, length) if by_epoch else (t, steps)
    lowest = config.get("min_lr", 0.0) if "min_lr_ratio" not in config else base * config["min_lr_ratio"]
    policy = config["policy"]
    if policy == "fixed":
        rates = np.full(steps, base)
    elif policy == "poly":
        rates = (base - lowest) * (1 - progress / end) ** config.get("power", 1.0) + lowest
    elif policy == "step":
        marks = config["step"]
        passed = progress // marks if isinstance(marks, int) else sum((progress >= mark) * 1 for mark in marks)
        rates = np.maximum(base * config.get("gamma", 0.1) ** passed, config.get("min_lr", 0.0))
    elif policy == "exp":
        rates = base * config["gamma"] ** progress
    elif policy == "inv":
        rates = base * (1 + config["gamma"] * progress) ** -config.get("power", 1.0)
    elif policy == "CosineAnnealing":
        rates = lowest + 0.5 * (base - lowest) * (1 + np.cos(np.pi * progress / end))
    elif policy == "FlatCosineAnnealing":
        start = round(end * config.get("start_percent", 0.75))
        rates = lowest + 0.5 * (base - lowest) * (1 + np.cos(np.pi * np.maximum(progress - start, 0) / (end - start)))
    elif policy == "LinearAnnealing":
        rates = base + (lowest - base) * progress / end
    elif policy == "CosineRestart":
        rates, begin = [], 0
        for period, weight in zip(config["periods"], config["restart_weights"], strict=True):
            inside = progress[(progress >= begin) & (progress < begin + period)] - begin
            rates.append(lowest + 0.5 * weight * (base - lowest) * (1 + np.cos(np.pi * inside / period)))
            begin += period
        rates = np.concatenate(rates)
    if config.get("warmup"):
        count = config["warmup_iters"] * (epoch_length if config.get("warmup_by_epoch") else 1)
        ratio, share = config.get("warmup_ratio", 0.1), np.minimum(t / count, 1)
        factors = {
            "linear": 1 - (1 - share) * (1 - ratio),
            "constant": np.full(steps, ratio),
            "exp": ratio ** (1 - share),
        }
        rates = np.where(t < count, rates * factors[config["warmup"]], rates)
    return rates


def our_curve(config, base, length, epoch_length=None):
    runner = (
        {"type": "EpochBasedRunner", "max_epochs": length}
        if epoch_length
        else {"type": "IterBasedRunner", "max_iters": length}
    )
    new = upgraded(lr_config=config, runner=runner, checkpoint_config={"interval": 1})
    schedule = Schedule(
        make_experiment(new).optimizer.schedule, [base], epoch_length or 10, length * (epoch_length or 1)
    )
    return np.array([schedule.rates(step)[0] for step in range(length * (epoch_length or 1))])


def test_rates_of_every_official_config_at_every_step():
    distinct = {
        json.dumps([config["optimizer"]["lr"], config["lr_config"], config.get("runner") or config["total_iters"]])
        for config in configs(0).values()
    }
    assert len(distinct) > 30
    for base, config, runner in map(json.loads, sorted(distinct)):
        length = runner["max_iters"] if isinstance(runner, dict) else runner
        np.testing.assert_allclose(
            our_curve(config, base, length),
            mmcv_curve(config, base, length),
            rtol=1e-12,
            atol=1e-20,
            err_msg=str(config),
        )


POLICIES = [
    {"policy": "fixed"},
    {"policy": "poly", "power": 0.9, "min_lr": 1e-4},
    {"policy": "poly"},
    {"policy": "step", "step": [6, 9]},
    {"policy": "step", "step": 4, "gamma": 0.3, "min_lr": 1e-3},
    {"policy": "exp", "gamma": 0.97},
    {"policy": "inv", "gamma": 0.1, "power": 0.75},
    {"policy": "CosineAnnealing", "min_lr": 1e-5},
    {"policy": "CosineAnnealing", "min_lr_ratio": 1e-2},
    {"policy": "FlatCosineAnnealing", "min_lr_ratio": 1e-2, "start_percent": 0.5},
    {"policy": "LinearAnnealing", "min_lr_ratio": 0.1},
    {"policy": "CosineRestart", "periods": [4, 8], "restart_weights": [1, 0.5], "min_lr": 1e-4},
]
WARMUPS = [
    {},
    {"warmup": "linear", "warmup_iters": 5},
    {"warmup": "constant", "warmup_iters": 5, "warmup_ratio": 0.2},
    {"warmup": "exp", "warmup_iters": 5, "warmup_ratio": 1e-3},
]


@pytest.mark.parametrize("warmup", WARMUPS, ids=lambda config: config.get("warmup", "none"))
@pytest.mark.parametrize("policy", POLICIES, ids=lambda config: "-".join(map(str, config.values())))
class TestPolicies:
    def test_counted_in_iterations(self, policy, warmup):
        config = policy | warmup | {"by_epoch": False}
        np.testing.assert_allclose(our_curve(config, 0.01, 12), mmcv_curve(config, 0.01, 12), rtol=1e-12)

    def test_counted_in_epochs(self, policy, warmup):
        config = policy | warmup
        np.testing.assert_allclose(our_curve(config, 0.01, 12, 7), mmcv_curve(config, 0.01, 12, 7), rtol=1e-12)

    def test_iterations_of_a_run_in_epochs(self, policy, warmup):
        config = policy | warmup | {"by_epoch": False}
        if policy["policy"] == "CosineRestart":
            config["periods"] = [28, 56]
        if warmup:
            config |= {"warmup_by_epoch": True, "warmup_iters": 2}
        np.testing.assert_allclose(our_curve(config, 0.01, 12, 7), mmcv_curve(config, 0.01, 12, 7), rtol=1e-12)


@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_equals_torch(three_phase):
    options = {"max_lr": 0.1, "pct_start": 0.25, "div_factor": 20.0, "three_phase": three_phase}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, total_steps=40, **options)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(our_curve({"policy": "OneCycle", **options}, 0.3, 40), expected, rtol=1e-9)


def test_cyclic_goes_up_and_down():
    rates = our_curve(
        {"policy": "cyclic", "target_ratio": (10, 0.1), "cyclic_times": 2, "step_ratio_up": 0.5}, 0.01, 40
    )
    assert rates[[0, 20]] == pytest.approx(0.01)
    assert rates[[10, 30]] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.01 + (0.1 - 0.01) * (1 - math.cos(math.pi / 2)) / 2)


def test_by_epoch_rates_of_a_run_in_iterations_did_not_move():
    with pytest.warns(UserWarning, match="by_epoch=True"):
        new = upgrade_config(old_config(lr_config={"policy": "step", "step": [3], "by_epoch": True}))
    assert new["param_scheduler"] == []
