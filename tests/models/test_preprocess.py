"""Normalisation: the order of channels."""

from __future__ import annotations

import pytest
import torch

from terrazzo.errors import UserError
from terrazzo.models.build import build_preprocess

ORDERS = [
    ({"bgr_to_rgb": True}, [10, 20, 30]),
    ({"rgb_to_bgr": True}, [10, 20, 30]),  # swaps what MMSegmentation reads, which is BGR
    ({"bgr_to_rgb": False, "rgb_to_bgr": True}, [10, 20, 30]),
    ({"bgr_to_rgb": False, "rgb_to_bgr": False}, [30, 20, 10]),
    ({"mean": None, "std": None, "bgr_to_rgb": None}, [30, 20, 10]),  # as the official config of HSI-Drive has it
    ({"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}, [29, 18, 7]),
    ({"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0], "rgb_to_bgr": True}, [9, 18, 27]),
]


@pytest.mark.parametrize(("flags", "channels"), ORDERS)
def test_either_flag_swaps_the_channels_of_bgr_images(flags, channels):
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    preprocess = build_preprocess({"type": "SegDataPreProcessor", **flags})
    assert preprocess(image).flatten().tolist() == channels


def test_without_a_preprocessor_images_stay_rgb():
    assert build_preprocess({})(torch.arange(3).view(1, 3, 1, 1)).flatten().tolist() == [0, 1, 2]


def test_both_flags_are_an_error():
    with pytest.raises(UserError, match="bgr_to_rgb and rgb_to_bgr both swap"):
        build_preprocess({"type": "SegDataPreProcessor", "bgr_to_rgb": True, "rgb_to_bgr": True})
