"""Optimizers, and which parameters they treat in which way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from support.training_facts import PARAMETER_GROUPS, rates_and_decays
from terrazzo.errors import UserError
from terrazzo.training.optim.build import build_optimizer
from terrazzo.training.optim.muon import MuonWithAdamW, orthogonalise
from terrazzo.training.optim.schedule_free import AdamWScheduleFree


@pytest.mark.parametrize("recipe", PARAMETER_GROUPS)
def test_parameter_groups_equal_golden(recipe):
    """Rate and weight decay of every parameter are those that MMSegmentation's constructors give."""
    actual = rates_and_decays(recipe)
    expected = {
        name: tuple(map(float, values.split()))
        for values, members in PARAMETER_GROUPS[recipe].items()
        for name in members
    }
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        assert values == pytest.approx(expected[name]), name


def test_layer_decay_of_convnext_groups_three_blocks_of_the_long_stage():
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"stages": nn.ModuleList()}), "head": nn.Linear(2, 2, bias=False)})
    for depth in (3, 3, 9, 3):
        model["backbone"]["stages"].append(nn.Sequential(*[nn.Linear(2, 2, bias=False) for _ in range(depth)]))
    paramwise = {"num_layers": 6, "decay_rate": 0.5, "decay_type": "layer_wise"}
    optimizer = build_optimizer(
        model, {"type": "AdamW", "lr": 128.0}, paramwise, "LearningRateDecayOptimizerConstructor"
    )
    rates = sorted((group["lr"], len(group["params"])) for group in optimizer.param_groups)
    assert rates == [(2.0, 3), (4.0, 3), (8.0, 3), (16.0, 3), (32.0, 3), (64.0, 3), (128.0, 1)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"paramwise": {"decay_rate": 0.9}}, "num_layers"),
        ({"paramwise": {"num_layers": 2, "decay_rate": 0.9, "decay_type": "layerwise"}}, "layer_wise"),
        ({"paramwise": {"num_layers": 2, "decay_rat": 0.9}}, "decay_rate"),
        ({"constructor": "LayerDecayOptimizerConstrctor"}, "LayerDecayOptimizerConstructor"),
        ({"spec": {"type": "MuonWithAdm", "lr": 1.0}}, "MuonWithAdamW"),
        ({"constructor": None, "paramwise": {"norm_decay_mult": "0"}}, "norm_decay_mult: '0' is not a number"),
        ({"constructor": None, "paramwise": {"custom_keys": {"a": {"lr_mult": {}}}}}, r"custom_keys\.a\.lr_mult: \{\}"),
        ({"constructor": None, "paramwise": {"custom_keys": {"a": 0.1}}}, "custom_keys has parts of names"),
    ],
)
def test_mistakes_are_named(spec, message):
    arguments = {"spec": {"type": "AdamW", "lr": 1.0}, "constructor": "LayerDecayOptimizerConstructor"} | spec
    with pytest.raises(UserError, match=message):
        build_optimizer(nn.Linear(2, 2), **arguments)


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((8, 20), (20, 8), (16, 16)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert values.min() > 0.5 and values.max() < 1.3


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 3, 6, 6, generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return model, inputs, (inputs[:, :1, 1:-1, 1:-1] > 0).long()[:, 0]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "MuonWithAdamW", "lr": 0.02},
        {"type": "AdamWScheduleFree", "lr": 0.02, "warmup_steps": 5},
        {"type": "AdamW", "lr": 0.02},
        {"type": "SGD", "lr": 0.1, "momentum": 0.9},
    ],
    ids=lambda spec: spec["type"],
)
def test_every_optimizer_learns_a_simple_rule_and_continues_from_its_state(spec):
    model, inputs, labels = problem()
    optimizer = build_optimizer(model, spec)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> float:
        for _ in range(count):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    start = steps(model, optimizer, 1)
    steps(model, optimizer, 20)
    other, *_ = problem()
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(other, spec)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert steps(model, optimizer, 20) == steps(other, resumed, 20) < 0.5 * start


def test_schedule_free_weights_are_the_average_of_the_fast_ones():
    """With beta 1 = 1 gradients are taken at the average itself, which is a plain mean when the rate is constant."""
    weight = nn.Parameter(torch.tensor([4.0]))
    optimizer = AdamWScheduleFree([weight], lr=0.1, betas=(0.9, 0.0))
    fast = [4.0]
    for _ in range(5):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        fast.append(fast[-1] - 0.1)
    optimizer.eval()
    assert weight.item() == pytest.approx(sum(fast[1:]) / 5, abs=1e-5)
    average = weight.item()
    optimizer.train()
    assert weight.item() == pytest.approx(0.9 * average + 0.1 * fast[-1], abs=1e-5)


def test_muon_moves_matrices_by_its_rate():
    weight = nn.Parameter(torch.zeros(16, 16))
    weight.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    MuonWithAdamW([weight], lr=0.1).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_is_torchs_own_for_matrices_only():
    assert type(build_optimizer(nn.Linear(4, 4, bias=False), {"type": "Muon", "lr": 0.1})) is torch.optim.Muon
    with pytest.raises(UserError, match=r"two-dimensional parameters, and 0.weight is 8x3x3x3; MuonWithAdamW"):
        build_optimizer(problem()[0], {"type": "Muon", "lr": 0.1})
