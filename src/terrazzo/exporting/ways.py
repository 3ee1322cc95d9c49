"""The ways to run a model that `terrazzo benchmark` compares. This module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """How a checkpoint is run: prepared by a function in `stopwatch.PREPARATIONS`, itself or as an exported file."""

    preparation: str = "none"
    suffix: str | None = None


# int8 joins here, with the precision that is asked of the export
WAYS = {
    "torch": Way(),
    "torch-bf16": Way("bf16"),
    "torch-compile": Way("compile"),
    "onnxruntime": Way(suffix=".onnx"),
    "openvino": Way(suffix=".xml"),
    "openvino-bf16": Way("hint", suffix=".xml"),
}
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch-export"}  # of exported files
