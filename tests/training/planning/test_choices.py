"""Choices by the fingerprint of the data alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from terrazzo.data.discovery.draft import Draft
from terrazzo.data.fingerprint import ClassShape, Fingerprint
from terrazzo.training.planning import choices
from terrazzo.training.planning.networks import PYRAMID, UNET

GROUND = ClassShape("ground", 0.9, 1.0, 40_000, 200, 400)
VESSEL = ClassShape("vessel", 0.1, 1.0, 100, 4, 3000)
SPOT = ClassShape("spot", 0.002, 1.0, 49, 5, 10)
HOUSE = ClassShape("house", 0.09, 0.1, 2500, 30, 50)
TREE = ClassShape("tree", 0.4, 1.0, 900, 20, 50)


def facts(*classes: ClassShape, size: tuple[int, int] = (256, 256)) -> Fingerprint:
    return Fingerprint(100, (size,), classes)


def types(terms: Any) -> list[str]:
    return [term["type"] for term in (terms if isinstance(terms, list) else [terms])]


@pytest.mark.parametrize(
    ("found", "network", "loss"),
    [
        (facts(GROUND, VESSEL), UNET, ["CrossEntropyLoss", "DiceLoss"]),
        (facts(GROUND, SPOT), PYRAMID, ["CrossEntropyLoss", "DiceLoss"]),
        (facts(GROUND, TREE), PYRAMID, ["CrossEntropyLoss"]),
        (facts(GROUND, TREE, VESSEL), PYRAMID, ["CrossEntropyLoss"]),
    ],
)
def test_network_and_loss(found, network, loss):
    draft = Draft(Path("data"))
    assert choices.choose_network(draft, found) is network
    assert types(choices.losses(found)[0]) == loss
    assert draft.reasons["recipe"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(GROUND, SPOT), [1.5, 1.0]),  # 7 px: not two pixels of a map at stride 4
        (facts(GROUND, HOUSE), [1.0]),
        (facts(GROUND, HOUSE, size=(1024, 2048)), [0.5]),  # 50 px: still 25
        (facts(GROUND, SPOT, size=(1024, 2048)), [1.0]),
        (facts(GROUND, VESSEL, size=(1024, 1024)), [1.0]),
    ],
)
def test_scale(found, expected):
    network = choices.choose_network(Draft(Path("data")), found)
    assert [scale for scale, _ in choices.scales(found, network)] == expected


def test_balance():
    draft = Draft(Path("data"))
    choices.choose_balance(draft, facts(TREE, HOUSE, SPOT))
    assert draft.values == {"class_weight": [0.5, 1.0, 3.0], "rare_class_sampling": True}
    sparse = Draft(Path("data"))
    choices.choose_balance(sparse, facts(GROUND, SPOT))
    assert sparse.values == {"class_weight": [1.0, 20.0]}
    assert "'house' in 10%" in draft.reasons["rare_class_sampling"]
    assert choices.is_dominated(facts(GROUND, HOUSE, SPOT)) and not choices.is_dominated(facts(GROUND, SPOT))


@pytest.mark.parametrize(("crop", "expected"), [("192x192", ["spot"]), ("256x256", None)])
def test_crops_are_taken_around_rare_classes_where_they_could_miss_them(crop, expected):
    draft = Draft(Path("data"))
    draft.set("crop", crop)
    choices.choose_crops(draft, facts(GROUND, TREE, SPOT), 1.0)
    assert draft.values.get("rare_class_crops") == expected
