"""The recipe's model in a short form."""

from __future__ import annotations

import pytest

import terrazzo as tz

DATA = {"classes": ["sky", "road", "car"]}


def momenta(spec):
    if isinstance(spec, dict):
        found = [spec["momentum"]] if "momentum" in spec else []
        return found + [value for part in spec.values() for value in momenta(part)]
    return [value for part in spec for value in momenta(part)] if isinstance(spec, (list, tuple)) else []


@pytest.mark.parametrize(
    ("length", "momentum"),
    [
        ({"iterations": 50}, 0.1),
        ({"iterations": 200}, 0.1),
        ({"iterations": 1000}, 0.02),
        ({"iterations": 20000}, 0.01),
        ({}, 0.01),
        ({"epochs": 30}, 0.1),
    ],
)
def test_batch_norms_follow_short_runs(length, momentum):
    """Fast-SCNN's momentum of 0.01 is for 160,000 steps."""
    config = tz.load_config({"recipe": "fastscnn", "data": DATA, **length})
    assert set(momenta(config["model"])) == {momentum}


def test_a_momentum_of_the_users_own_is_kept():
    norm = {"type": "BN", "momentum": 0.003}
    config = tz.load_config(
        {"recipe": "fastscnn", "data": DATA, "iterations": 100, "model": {"backbone": {"norm_cfg": norm}}}
    )
    assert config["model"]["backbone"]["norm_cfg"]["momentum"] == 0.003
    assert config["model"]["decode_head"]["norm_cfg"]["momentum"] == 0.1


def test_class_weights_are_not_for_heads_that_learn_edges():
    config = tz.load_config({"recipe": "stdc", "data": DATA, "class_weight": [1, 2, 3]})
    *plain, edges = config["model"]["auxiliary_head"]
    assert edges["type"] == "STDCHead" and "class_weight" not in edges["loss_decode"][0]
    assert all(head["loss_decode"]["class_weight"] == [1, 2, 3] for head in plain)
    tz.build_model(config)
