"""How unlike the training images an image is."""

from __future__ import annotations

import json

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import fit, make_streets, street, tiny_config, write_config
from terrazzo.checkpoints.publish import publish
from terrazzo.inference.likeness import Fingerprint, evenly, fingerprint

STREETS = [street(seed, 60, 80)[0] for seed in range(20)]


def test_images_of_the_same_kind_are_alike_and_others_are_not():
    found = fingerprint(STREETS).with_confidence([0.7, 0.8, 0.9])
    assert found.images == 20 and found.sizes[2] == pytest.approx((60 * 80) ** 0.5, abs=0.1)
    usual = [max(found.unlike(street(seed, 60, 80)[0], 0.85).values()) for seed in range(100, 140)]
    assert np.mean(np.array(usual) > 1) < 0.2
    image = street(50, 60, 80)[0]
    assert found.unlike(image // 3)["colours"] > 2 > found.unlike(image)["colours"]
    assert found.unlike(np.tile(image, (4, 4, 1)))["size"] > 2
    assert found.unlike(image, 0.5)["confidence"] > 2 > found.unlike(image, 0.75)["confidence"]
    assert "confidence" not in found.unlike(image)


def test_bands_of_any_range():
    rng = np.random.default_rng(0)
    images = [rng.normal(3000, 200, (30, 40, 4)).astype(np.float32) for _ in range(5)]
    images[0][:9] = np.nan
    found = fingerprint(images)
    assert max(found.unlike(images[1]).values()) < 1.5 and found.unlike(images[1] + 2000)["colours"] > 5
    assert fingerprint([]) is None


@pytest.mark.parametrize("damage", [{"sizes": [1]}, {"histograms": [[1]]}, {"confidence": "x"}, {"more": 1}, None])
def test_a_damaged_one_is_none(damage):
    values = fingerprint(STREETS).values()
    assert Fingerprint.read(json.loads(json.dumps(values))).values() == values
    assert Fingerprint.read(None if damage is None else values | damage) is None


def test_images_are_taken_evenly():
    assert evenly(3) == [0, 1, 2] and evenly(0) == [] and evenly(100, 4) == [0, 25, 50, 75]


def test_training_writes_it_and_publishing_keeps_it(tmp_path):
    config = tiny_config(make_streets(tmp_path / "data"), steps=2, batch=2)
    best = fit(config, tmp_path / "run").best
    found = tz.load(best).fingerprint
    assert found.images == 6 and found.sizes[2] == pytest.approx((32 * 40) ** 0.5, abs=0.1)
    assert 1 / 3 <= found.confidence[2] <= 1
    published = publish(best, tmp_path / "a.pth").path
    assert tz.load(published).fingerprint == found


@pytest.mark.slow
def test_publishing_takes_it_from_other_data(tmp_path):
    best = fit(tiny_config(make_streets(tmp_path / "data"), steps=2, batch=2), tmp_path / "run").best
    other = write_config(tmp_path / "c.yaml", tiny_config(make_streets(tmp_path / "b", 2, 2, (64, 80)), batch=2))
    found = tz.load(publish(best, tmp_path / "b.safetensors", data=other).path).fingerprint
    assert found.images == 2 and found.sizes[2] == pytest.approx((64 * 80) ** 0.5, abs=0.1) and found.confidence
