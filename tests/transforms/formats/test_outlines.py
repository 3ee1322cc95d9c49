"""Masks as run lengths and polygons, filled again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matplotlib.path import Path

from terrazzo.transforms.formats.outlines import polygons, run_lengths


def inside(ring: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], 1)
    return Path([*ring, ring[0]]).contains_points(points).reshape(shape)


MASKS = [
    np.zeros((3, 4), bool),
    np.ones((1, 1), bool),
    np.eye(4, dtype=bool),
    np.eye(4, dtype=bool)[::-1],
    np.pad(np.zeros((2, 2), bool), 2, constant_values=True),
    *(np.random.default_rng(seed).random((9, 12)) < 0.5 for seed in range(12)),
]


@pytest.mark.parametrize("mask", MASKS)
def test_polygons_are_exact(mask):
    found = polygons(mask)
    filled = np.zeros(mask.shape, bool)
    for polygon in found:
        own = inside(polygon["exterior"], mask.shape)
        for hole in polygon["holes"]:
            own &= ~inside(hole, mask.shape)
        assert own.any() and not (filled & own).any()
        filled |= own
    assert np.array_equal(filled, mask)
    assert len(found) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1


@pytest.mark.parametrize("mask", MASKS)
def test_run_lengths_are_exact(mask):
    found = run_lengths(mask)
    counts = found["counts"]
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    assert np.array_equal(values.reshape(mask.shape[::-1]).T, mask) and found["size"] == list(mask.shape)
