"""OpenVINO files, run by OpenVINO. This module imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.exported import ModelFacts
from terrazzo.system.extras import import_extra

SECTION = "terrazzo"  # of a model's rt_info


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
        self.compiled: dict[str, Any] = {}

    def compile(self, output: str) -> Any:
        """The compiled graph of one output."""
        if output not in self.compiled:
            # as the file has it: many CPUs compute everything in bf16 otherwise, steps on images and logits included
            settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
            if self.threads:
                settings["INFERENCE_NUM_THREADS"] = self.threads
            model = self.model
            if output not in {name for port in model.outputs for name in port.get_names()}:
                model = self.core.read_model(self.path)
                model.add_outputs([output])
            try:
                self.compiled[output] = self.core.compile_model(model, "CPU", settings)
            except RuntimeError as problem:
                raise UserError(f"{self.path} cannot be run: {last_line(problem)}") from None
        return self.compiled[output]

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        compiled = self.compile(output)
        try:
            return np.array(compiled({0: images})[compiled.output(output)])
        except RuntimeError as problem:
            shape = "x".join(map(str, images.shape))
            raise UserError(f"{self.path} does not run on images of {shape}: {last_line(problem)}") from None


def last_line(problem: Exception) -> str:
    """The reason in one of the library's messages, which begin with places in its source."""
    lines = str(problem).strip().splitlines()
    return lines[-1].strip()[:300] if lines else "unknown error"
