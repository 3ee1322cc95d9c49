"""The facts about classes by which a plan chooses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from terrazzo.data.build import build_dataset
from terrazzo.data.fingerprint import Fingerprint, take_fingerprint

SIZE = 192


def fingerprint(root: Path, *labels: np.ndarray) -> Fingerprint:
    for index, label in enumerate(labels):
        for kind, picture in (("images", np.zeros((SIZE, SIZE, 3), np.uint8)), ("labels", label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / kind / f"{index}.png"), picture)
    folders = {"img_path": "images", "seg_map_path": "labels"}
    classes = {"classes": ["ground", "thing"]}
    return take_fingerprint(build_dataset({"data_root": str(root), "data_prefix": folders, "metainfo": classes}))


@pytest.mark.parametrize("width", [3, 8])
def test_the_width_of_lines(tmp_path, width):
    label = np.zeros((SIZE, SIZE), np.uint8)
    label[50 : 50 + width] = 1
    thing = fingerprint(tmp_path, label).classes[1]
    assert thing.width == pytest.approx(width, abs=0.4) and thing.length == pytest.approx(SIZE, rel=0.15)
    assert thing.is_thin and thing.area == width * SIZE


def test_spots_are_small_not_thin(tmp_path):
    label = np.zeros((SIZE, SIZE), np.uint8)
    for column, side in ((20, 6), (60, 8), (100, 10), (150, 1)):  # the last one is a slip of the brush
        label[20 : 20 + side, column : column + side] = 1
    found = fingerprint(tmp_path, label, np.zeros_like(label))
    thing = found.rarest
    assert thing is found.smallest is found.classes[1] and not thing.is_thin
    assert 6 <= thing.side < 8
    assert thing.shown == 0.5 and thing.share == pytest.approx(201 / (2 * SIZE * SIZE))
    assert found.images == 2 and found.size == (SIZE, SIZE)
