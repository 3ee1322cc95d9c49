"""The ways to run a model that `terrazzo benchmark` compares. This module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """A way of running a checkpoint: prepared by one of `stopwatch.PREPARATIONS`, itself or as an exported file."""

    preparation: str = "none"
    suffix: str | None = None
    precision: str = "f32"  # of the exported file


WAYS = {
    "torch": Way(),
    "torch-bf16": Way("bf16"),
    "torch-compile": Way("compile"),
    "onnxruntime": Way(suffix=".onnx"),
    "onnxruntime-int8": Way(suffix=".onnx", precision="int8"),
    "openvino": Way(suffix=".xml"),
    "openvino-bf16": Way(suffix=".xml", precision="bf16"),
    "openvino-int8": Way(suffix=".xml", precision="int8"),
}
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch-export"}  # of exported files
