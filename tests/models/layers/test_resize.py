"""Resizing in the forms that exports need."""

import pytest
import torch

from terrazzo.models.layers import resize
from terrazzo.models.layers.resize import resize_by_matrices


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (25, 13), (1, 1), (16, 24)])
def test_matrices_resize_as_interpolation_does(size, corners):
    maps = torch.randn(2, 3, 16, 24)
    expected = resize(maps, size, align_corners=corners)
    torch.testing.assert_close(resize_by_matrices(maps, size, int(corners)), expected, atol=2e-5, rtol=0)
