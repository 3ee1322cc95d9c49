"""Resizing of images in graphs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from support.exports import picture
from terrazzo.exporting.graph import target_size
from terrazzo.exporting.resizing import resize_image
from terrazzo.sample import Sample
from terrazzo.transforms.resize import Resize, ResizeShortestEdge, ResizeToMultiple


@pytest.mark.parametrize("seed", range(30))
def test_equal_to_opencv_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    height, width, new_height, new_width = map(int, rng.integers(3, 300, 4))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = resize_image(torch.from_numpy(image).permute(2, 0, 1)[None], (new_height, new_width))
    expected = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resized[0].permute(1, 2, 0).numpy(), expected)


STEPS = [
    Resize(scale=(96, 48), keep_ratio=True),
    Resize(scale=(96, 48), keep_ratio=False),
    Resize(scale_factor=1.5),
    ResizeShortestEdge(scale=64, max_size=150),
    ResizeToMultiple(size_divisor=32),
]


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("size", [(48, 96), (31, 57), (200, 33), (64, 64)])
def test_the_sizes_are_those_of_the_transforms(step, size):
    image = picture(*size)
    transformed = step(Sample(image=image, original_size=size), np.random.default_rng(0))
    assert target_size(step, *size) == transformed.image.shape[:2]
