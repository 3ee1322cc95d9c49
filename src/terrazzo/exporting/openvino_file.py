"""A model as an OpenVINO file, made from its ONNX form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.inference.openvino_runtime import SECTION
from terrazzo.system.extras import import_extra


def to_openvino(onnx_file: Path) -> Any:
    """The OpenVINO model of an ONNX file; its tensors have the same names."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    return openvino.convert_model(os.fspath(onnx_file))


def write_info(model: Any, texts: Mapping[str, str]) -> None:
    """Set an OpenVINO model's `rt_info`."""
    for key, text in texts.items():
        model.set_rt_info(text, [SECTION, key])


def save(model: Any, path: Path) -> None:
    """Write the `.xml` file, and the weights beside it in single precision."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    openvino.save_model(model, os.fspath(path), compress_to_fp16=False)
