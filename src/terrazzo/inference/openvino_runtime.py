"""OpenVINO files, run by OpenVINO. This module imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.exported import ModelFacts, padded_size
from terrazzo.system.extras import import_extra

SECTION = "terrazzo"  # of a model's rt_info
SMALL_LOGITS = "logits.small"  # those of the network, where the graph resizes some of their channels alone
ENLARGED = "logits.enlarged"  # by a model of its own


def import_openvino(module: str = "openvino", what: str = "OpenVINO files") -> Any:
    """A module of OpenVINO, without the usage statistics that it would send. Raises UserError where it is missing."""
    absent = object()
    before = sys.modules.get("openvino_telemetry", absent)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return import_extra(module, "openvino", what)
    finally:
        if before is absent:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = before  # type: ignore[assignment]


class OpenVINOSession:
    """One `.xml` file with its `.bin`; the graphs of labels and of logits are compiled when first run."""

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        self.openvino = import_openvino()
        if not self.path.is_file():
            raise UserError(f"there is no file {path}")
        if not self.path.with_suffix(".bin").is_file():
            raise UserError(f"{self.path.with_suffix('.bin')} is missing: the weights of {path}")
        self.core = self.openvino.Core()
        try:
            self.model = self.core.read_model(self.path)
            info = self.model.get_rt_info()
            texts = {key: value.value for key, value in info[SECTION].items()} if SECTION in info else {}
        except RuntimeError as problem:
            raise UserError(f"{path} cannot be read: {last_line(problem)}") from None
        self.facts = ModelFacts.read(texts, path)
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        tensors = (port for operation in self.model.get_ops() for port in operation.outputs())
        self.has_small_logits = any(SMALL_LOGITS in port.get_names() for port in tensors)
        self.compiled: dict[str, Any] = {}

    def compile(self, output: str) -> Any:
        """The compiled graph of one output."""
        if output not in self.compiled:
            # as the file has it: many CPUs compute everything in bf16 otherwise, steps on images and logits included
            settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
            if self.threads:
                settings["INFERENCE_NUM_THREADS"] = self.threads
            model = self.model
            if output == ENLARGED:
                model = enlarging_model(self.facts.preprocessing["align_corners"])
            elif output not in {name for port in model.outputs for name in port.get_names()}:
                model = self.core.read_model(self.path)
                model.add_outputs([output])
            try:
                self.compiled[output] = self.core.compile_model(model, "CPU", settings)
            except RuntimeError as problem:
                raise UserError(f"{self.path} cannot be run: {last_line(problem)}") from None
        return self.compiled[output]

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        size = images.shape[1:3]
        try:
            if output == "logits" and self.has_small_logits:
                small = self.compute(SMALL_LOGITS, images)
                padded = np.array(padded_size(size, self.facts.preprocessing))
                return self.compute(ENLARGED, small, padded)[:, :, : size[0], : size[1]]
            return self.compute(output, images)
        except RuntimeError as problem:
            shape = "x".join(map(str, images.shape))
            raise UserError(f"{self.path} does not run on images of {shape}: {last_line(problem)}") from None

    def compute(self, output: str, *inputs: np.ndarray) -> np.ndarray:
        """An output of the file's graph, or of `enlarging_model`."""
        compiled = self.compile(output)
        return np.array(compiled(dict(enumerate(inputs)))[compiled.output(output)])


def enlarging_model(align_corners: bool) -> Any:
    """A model of OpenVINO that resizes logits (N, K, h, w) to a size (height, width)."""
    openvino = import_openvino()
    operators = import_openvino("openvino.opset13")
    logits = operators.parameter([-1, -1, -1, -1], np.float32)
    size = operators.parameter([2], np.int64)
    mode = "align_corners" if align_corners else "half_pixel"
    result = operators.interpolate(
        logits, size, "linear_onnx", "sizes", coordinate_transformation_mode=mode, axes=np.array([2, 3])
    )
    result.output(0).set_names({ENLARGED})
    return openvino.Model([result], [logits, size], "enlarging")


def last_line(problem: Exception) -> str:
    """The reason in one of the library's messages, which begin with places in its source."""
    lines = str(problem).strip().splitlines()
    return lines[-1].strip()[:300] if lines else "unknown error"
