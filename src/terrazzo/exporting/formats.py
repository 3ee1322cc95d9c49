"""The formats of exported files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from terrazzo.errors import UserError
from terrazzo.exporting.onnx_file import quiet, to_onnx, write_metadata
from terrazzo.exporting.plan import Plan
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.openvino_runtime import SECTION
from terrazzo.inference.program_runtime import FACTS
from terrazzo.system.extras import import_extra

EXAMPLE = (2, 203, 301)  # images, height, width: of no special relation to any stride


def example_of(plan: Plan) -> torch.Tensor:
    """Images for the tracer, of the plan's size if it has one."""
    _, height, width = EXAMPLE
    height, width = plan.facts.size or (height, width)
    kind = getattr(torch, plan.facts.image_type)
    return torch.randint(0, 255, (EXAMPLE[0], height, width, plan.facts.bands)).to(kind)


def write_onnx(plan: Plan, path: Path) -> None:
    """Write an ONNX file without facts."""
    path.write_bytes(to_onnx(plan.graph, example_of(plan), plan.facts.size).SerializeToString())


def write_openvino(plan: Plan, path: Path) -> None:
    """Write an OpenVINO model without facts, made from its ONNX form."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    source = path.with_suffix(".onnx")
    write_onnx(plan, source)
    openvino.save_model(openvino.convert_model(os.fspath(source)), os.fspath(path), compress_to_fp16=False)
    source.unlink()


def state_onnx(path: Path, facts: ModelFacts) -> None:
    """Add the facts to an ONNX file."""
    onnx = import_extra("onnx", "export", "ONNX exports")
    model = onnx.load(path)
    write_metadata(model, facts.texts())
    path.write_bytes(model.SerializeToString())


def state_openvino(path: Path, facts: ModelFacts) -> None:
    """Add the facts to an OpenVINO model."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    model = openvino.Core().read_model(path)
    for key, text in facts.texts().items():
        model.set_rt_info(text, [SECTION, key])
    temporary = path.with_name(f"new_{path.name}")  # the weights of the old one are mapped into memory
    openvino.save_model(model, os.fspath(temporary), compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        temporary.with_suffix(suffix).replace(path.with_suffix(suffix))


def write_program(plan: Plan, path: Path) -> None:
    """Write a `torch.export` program without facts; it returns logits after its other outputs."""
    dynamic = torch.export.Dim.DYNAMIC
    axes: dict[int, Any] = {0: dynamic} if plan.facts.size else {0: dynamic, 1: dynamic, 2: dynamic}
    with quiet(), torch.no_grad():
        try:
            graph = plan.graph.with_logits()
            program = torch.export.export(graph, (example_of(plan),), dynamic_shapes={"image": axes}, strict=False)
        except Exception as problem:
            raise UserError(f"this model cannot be exported: {str(problem).splitlines()[0]}") from problem
    torch.export.save(program, path)


def state_program(path: Path, facts: ModelFacts) -> None:
    """Add the facts to a program, as the file `terrazzo.json` inside."""
    outputs = [*facts.outputs, *([] if "logits" in facts.outputs else ["logits"])]
    texts = json.dumps(replace(facts, outputs=outputs).texts())
    torch.export.save(torch.export.load(path), path, extra_files={FACTS: texts})


@dataclass(frozen=True)
class Format:
    """One kind of file, by its suffix; `write` makes it, `state` adds or replaces the facts in it."""

    suffix: str
    write: Callable[[Plan, Path], None]
    state: Callable[[Path, ModelFacts], None]


FORMATS = {
    "onnx": Format(".onnx", write_onnx, state_onnx),
    "openvino": Format(".xml", write_openvino, state_openvino),
    "torch": Format(".pt2", write_program, state_program),
}
