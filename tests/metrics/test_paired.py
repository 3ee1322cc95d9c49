"""Differences between two models on the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from terrazzo.metrics.paired import adjusted, iou_scores, paired_differences

CLASSES = ["sky", "road"]


def counts(images: int, gain: float = 0.0, seed: int = 0) -> np.ndarray:
    """Counts (n, 3, 2) of a model that is right on about 70 % of the pixels, and on `gain` more."""
    right = np.random.default_rng(seed).normal(0.7 + gain, 0.05, (images, 2)).clip(0, 1)
    labelled = np.full((images, 2), 1000.0)
    hits = np.round(1000 * right)
    return np.stack([hits, labelled, hits + (labelled - hits)[:, ::-1]], axis=1)


def test_a_clear_difference_is_found_with_its_sign():
    better, worse = counts(40, 0.1), counts(40, seed=1)
    found = paired_differences(worse, better, CLASSES, 500)
    assert list(found) == ["mIoU", *CLASSES]
    assert found["mIoU"].first == pytest.approx(iou_scores(worse.sum(0))[0])
    assert 0 < found["mIoU"].low < found["mIoU"].value < found["mIoU"].high and found["mIoU"].p < 0.01
    back = paired_differences(better, worse, CLASSES, 500)["mIoU"]
    assert back.value == pytest.approx(-found["mIoU"].value) and back.p == pytest.approx(found["mIoU"].p)


def test_equal_models_do_not_differ():
    found = paired_differences(counts(20), counts(20), CLASSES, 200)["mIoU"]
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.p == pytest.approx(1) and math.isinf(found.images_needed)


def test_images_that_would_tell():
    first, second = counts(30), counts(30, 0.01, seed=1)
    found = paired_differences(first, second, CLASSES, 500)["mIoU"]
    assert found.p > 0.05 and found.images_needed > 30
    many = int(4 * found.images_needed / 30) + 1
    again = paired_differences(np.tile(first, (many, 1, 1)), np.tile(second, (many, 1, 1)), CLASSES, 100)["mIoU"]
    assert again.p < 0.05


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_never_tell(images):
    found = paired_differences(counts(images), counts(images, 0.2, seed=1), CLASSES, 500)["mIoU"]
    assert found.p >= min(1, 2.0 ** (1 - images)) > 0.05


def test_a_class_has_the_images_in_which_it_occurs():
    first, second = counts(20), counts(20, 0.1, seed=1)
    first[4:, :, 1] = second[4:, :, 1] = 0
    found = paired_differences(first, second, [*CLASSES], 200)
    assert (found["sky"].images, found["road"].images) == (20, 4)
    assert found["road"].p >= 0.125
    first[:, :, 1] = second[:, :, 1] = 0
    assert list(paired_differences(first, second, CLASSES, 200)) == ["mIoU", "sky"]


def test_p_values_of_several_tests():
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.6, 0.9]) == [1, 1]
