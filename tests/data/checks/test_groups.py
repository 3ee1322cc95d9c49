"""Images that belong together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrazzo.data.build import build_dataset
from terrazzo.data.checks.groups import alike, groups_by_name, groups_of
from terrazzo.data.checks.survey import SplitSurvey, read_all

NONE = np.zeros((0, 2), np.int64)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["eye_1L.png", "eye_1R.png", "eye_2L.png", "eye_2R.png", "eye_3L.png"],
            ["eye_1", "eye_1", "eye_2", "eye_2", "eye_3"],
        ),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png", "c/2.png"], ["a", "a", "b", "b", "c", "c"]),
        ([f"image_{number}.png" for number in range(8)], None),  # one group of all
        (["cat.png", "dog.png", "cow.png"], None),  # each its own
    ],
)
def test_groups_by_name(names, expected):
    assert groups_by_name(names) == expected


def test_what_looks_alike_belongs_together():
    names = [f"{number}.png" for number in range(6)]
    groups, reason = groups_of(names, np.array([[0, 3], [3, 5]]))
    assert groups == ["0.png", "1.png", "2.png", "0.png", "4.png", "0.png"]
    assert "4 groups of 6 images" in reason and "2 pairs" in reason
    assert groups_of(names, NONE) is None
    assert groups_of(names, np.array([[0, 1], [1, 2], [2, 3]])) is None  # most of the images


def test_pairs_that_look_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    first, second = (cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (96, 96)) for _ in range(2))
    brighter = np.clip(first * 0.8 + 40, 0, 255).astype(np.uint8)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name, picture in (("a", first), ("b", second), ("c", brighter)):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), picture)
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), np.eye(96, dtype=np.uint8))
    data = {"data_root": str(tmp_path), "metainfo": {"classes": ["x", "y"]}}
    dataset = build_dataset(data | {"data_prefix": {"img_path": "images", "seg_map_path": "labels"}})
    split = SplitSurvey.of("train", dataset.leaves())
    read_all([split])
    assert alike(split.entries).tolist() == [[0, 2]]
