"""The formats of exported files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from terrazzo.errors import UserError, first_line
from terrazzo.exporting.html_page import html_page, read_runtime
from terrazzo.exporting.onnx_file import quiet, to_onnx, write_metadata
from terrazzo.exporting.plan import Plan
from terrazzo.hub.cache import remember_program
from terrazzo.inference.exported import ExportedRuntime, ModelFacts
from terrazzo.inference.exported_model import ExportedModel, open_model
from terrazzo.inference.openvino_runtime import SECTION
from terrazzo.inference.program_runtime import FACTS, ProgramSession
from terrazzo.system.extras import import_extra
from terrazzo.system.failures import is_out_of_memory

EXAMPLE = (2, 203, 301)  # images, height, width: of no special relation to any stride
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "html": ".html"}


@dataclass(frozen=True)
class Format:
    """How one kind of file is made: `make` gives the model in memory, `open` runs it as its users will (files that this
    needs go into a folder of its own), `save` writes it with its facts."""

    make: Callable[[Plan, Path], Any]
    open: Callable[[Any, ModelFacts, Path], ExportedModel]
    save: Callable[[Any, ModelFacts, Path], None]


def format_named(name: str, ort_web: str | Path | None) -> Format:
    """A format by its name in SUFFIXES. Raises UserError where a page lacks its runtime."""
    if name == "torch":
        return Format(make_program, open_program, save_program)
    if name == "openvino":
        return Format(make_openvino, open_openvino, save_openvino)
    if name == "onnx":
        return Format(make_onnx, open_onnx, save_onnx)
    runtime = read_runtime(ort_web)

    def save_page(model: Any, facts: ModelFacts, path: Path) -> None:
        write_metadata(model, facts.texts())
        path.write_text(html_page(model.SerializeToString(), facts, runtime, path.stem), encoding="utf-8")

    return Format(make_onnx, open_onnx, save_page)


def example_of(plan: Plan) -> torch.Tensor:
    """Images for the tracer, of the plan's size if it has one."""
    _, height, width = EXAMPLE
    height, width = plan.facts.size or (height, width)
    kind = getattr(torch, plan.facts.image_type)
    return torch.randint(0, 255, (EXAMPLE[0], height, width, plan.facts.bands)).to(kind)


def make_onnx(plan: Plan, folder: Path) -> Any:
    return to_onnx(plan.graph, example_of(plan), plan.facts.size)


def open_onnx(model: Any, facts: ModelFacts, folder: Path) -> ExportedModel:
    save_onnx(model, facts, folder / "model.onnx")
    return open_model(folder / "model.onnx")


def save_onnx(model: Any, facts: ModelFacts, path: Path) -> None:
    write_metadata(model, facts.texts())
    path.write_bytes(model.SerializeToString())


def make_openvino(plan: Plan, folder: Path) -> Any:
    """Make an OpenVINO model from the ONNX form; its tensors have the same names."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    source = folder / "source.onnx"
    source.write_bytes(make_onnx(plan, folder).SerializeToString())
    return openvino.convert_model(os.fspath(source))


def open_openvino(model: Any, facts: ModelFacts, folder: Path) -> ExportedModel:
    save_openvino(model, facts, folder / "model.xml")
    return open_model(folder / "model.xml")


def save_openvino(model: Any, facts: ModelFacts, path: Path) -> None:
    """Write the `.xml` file, and beside it the weights in single precision."""
    openvino = import_extra("openvino", "openvino", "OpenVINO files")
    for key, text in facts.texts().items():
        model.set_rt_info(text, [SECTION, key])
    openvino.save_model(model, os.fspath(path), compress_to_fp16=False)


def make_program(plan: Plan, folder: Path) -> Any:
    """Make a `torch.export` program; it returns logits after its other outputs."""
    dynamic = torch.export.Dim.DYNAMIC
    axes: dict[int, Any] = {0: dynamic} if plan.facts.size else {0: dynamic, 1: dynamic, 2: dynamic}
    with quiet(), torch.no_grad():
        try:
            graph = plan.graph.with_logits()
            return torch.export.export(graph, (example_of(plan),), dynamic_shapes={"image": axes}, strict=False)
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            raise UserError(f"this model cannot be exported: {first_line(problem)}") from problem


def open_program(program: Any, facts: ModelFacts, folder: Path) -> ExportedModel:
    """Run a program as it is in memory: writing and reading one takes longer than everything else."""
    facts = of_program(facts)
    return ExportedModel(ExportedRuntime(ProgramSession("the program", program.module(), facts), facts))


def save_program(program: Any, facts: ModelFacts, path: Path) -> None:
    """Write a program with its facts as the file `terrazzo.json` inside."""
    with quiet():
        torch.export.save(program, path, extra_files={FACTS: json.dumps(of_program(facts).texts())})
    remember_program(path)


def of_program(facts: ModelFacts) -> ModelFacts:
    """The facts of a program, which returns all its outputs at once."""
    return replace(facts, outputs=[*facts.outputs, *([] if "logits" in facts.outputs else ["logits"])])
