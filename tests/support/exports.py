"""Small models to export, and what exported files are compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import terrazzo as tz
from support.tiny import model_config
from terrazzo.inference.segmenter import Segmenter
from terrazzo.inference.torch_runtime import TorchRuntime

EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
SIZES = [(32, 40), (31, 57), (64, 33), (47, 129)]


def need(name: str) -> None:
    """Skip where the packages of a format are not installed."""
    for package in EXTRAS.get(name, ()):
        pytest.importorskip(package)


def picture(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """An image (height, width, bands) of blocks and noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 220, (height // 8 + 1, width // 8 + 1, bands)).repeat(8, 0).repeat(8, 1)
    return (blocks[:height, :width] + rng.integers(0, 35, (height, width, bands))).astype(np.uint8)


def set_windows(mode: str, blending: str = "uniform") -> Callable[[dict[str, Any]], None]:
    """A change of a model's config that lets it run in windows."""

    def change(model: dict[str, Any]) -> None:
        model["test_cfg"] = {"mode": mode, "crop_size": [32, 32], "stride": [20, 20], "blending": blending}

    return change


def random_segmenter(
    pipeline: Sequence[Any] = ({"type": "LoadImageFromFile"},),
    bands: int = 3,
    change: Callable[[dict[str, Any]], None] = lambda model: None,
    **head: Any,
) -> Segmenter:
    """A Segmenter of the tiny model with random weights; `change` edits its config, `head` the keys of its head."""
    torch.manual_seed(1)
    spec = copy.deepcopy(model_config(**head))
    change(spec)
    model = tz.build_model(spec).eval()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.normal_(std=1.0)
        model.decode_head.conv_seg.bias.normal_(std=0.2)
    count = model.final_head.num_classes
    runtime = TorchRuntime(
        model,
        [f"class {index}" for index in range(count)],
        [[40 * index, 90, 200 - 30 * index] for index in range(count)],
        bands=bands,
        device=torch.device("cpu"),
    )
    return Segmenter(runtime, list(pipeline), source="tiny")
