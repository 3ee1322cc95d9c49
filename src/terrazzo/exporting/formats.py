"""The formats of exported files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError, first_line, is_out_of_memory
from terrazzo.exporting.asserts import without_asserts
from terrazzo.exporting.folders import save_bundle, save_triton
from terrazzo.exporting.html_page import (
    HELP,
    PACKAGE,
    WebRuntime,
    html_page,
    page_outputs,
    page_problem,
    read_runtime,
)
from terrazzo.exporting.largest import (
    Largest,
    argmax,
    argmax_by_comparison,
    argmax_of_last,
    argmax_of_possible,
)
from terrazzo.exporting.onnx_file import quiet, resizing_model, to_onnx, write_metadata
from terrazzo.exporting.plan import Plan, one_size
from terrazzo.exporting.quantization import convert_to_openvino, quantize_onnx, quantize_openvino
from terrazzo.exporting.tiles import RESOLUTION, check_reader, save_tiled, tiled_plan
from terrazzo.hub.cache import cached, remember_program
from terrazzo.inference.exported import ExportedRuntime, ModelFacts
from terrazzo.inference.exported_model import ExportedModel, open_model
from terrazzo.inference.openvino_runtime import SECTION, SMALL_LOGITS, import_openvino
from terrazzo.inference.program_runtime import FACTS, ProgramSession

MANY_CLASSES = 16
EXAMPLE = (2, 203, 301)  # images, height, width: of no special relation to any stride
Images = Sequence[np.ndarray]  # each (1, H, W, C)
SUFFIXES = {"aotinductor": ".pt2", "onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "html": ".html"}
# with the folder that is written by default; one called "triton" would hide the package that torch imports
FOLDERS = {"bundle": "bundle", "triton": "model_repository"}


@dataclass(frozen=True)
class Format:
    """The functions for one kind of file: `make` gives the model in memory, `open` runs it as its users will (with any
    files in a folder of its own), `save` writes it with its facts. `quantize` makes a model in 8-bit integers, from a
    plan, images and the names of layers to leave out; `bf16` says that networks in bfloat16 run. `adapt` changes the
    plan before, and raises UserError where the format cannot contain it; `notes` lists what a user may miss."""

    make: Callable[[Plan, Path], Any]
    open: Callable[[Any, ModelFacts, Path], ExportedModel]
    save: Callable[[Any, ModelFacts, Path], None]
    quantize: Callable[[Plan, Images, Sequence[str], Path], Any] | None = None
    bf16: bool = False
    adapt: Callable[[Plan], Plan] = lambda plan: plan
    notes: Callable[[ModelFacts], list[str]] = lambda facts: []

    @property
    def precisions(self) -> list[str]:
        """The precisions that the files can have, the fastest first."""
        return [*(["int8"] if self.quantize else []), *(["bf16"] if self.bf16 else []), "f32"]


def as_onnx(save: Callable[[Any, ModelFacts, Path], None], **others: Any) -> Format:
    """A format that holds an ONNX model."""
    return Format(make_onnx, open_onnx, save, quantize_as_onnx, **others)


def format_named(name: str, ort_web: str | Path | None) -> Format:
    """A format by its name in SUFFIXES or FOLDERS. Raises UserError where a page lacks its runtime."""
    if name == "html":
        return pages(read_runtime(ort_web))
    if name == "bundle":
        return bundles(ort_web)
    return {
        "onnx": as_onnx(save_onnx),
        "openvino": Format(make_openvino, open_openvino, save_openvino, quantize_as_openvino, bf16=True),
        "torch": Format(make_program, open_program, save_program, bf16=True),
        "aotinductor": Format(make_compiled, open_compiled, save_compiled),
        "triton": as_onnx(save_repository, adapt=with_logits_of_windows),
    }[name]


def tiled(reader: str, target: str, resolution: float | None) -> Format:
    """ONNX files for programs that cut maps into tiles, of this resolution in centimetres per pixel."""
    check_reader(reader, target, resolution)

    def save(model: Any, facts: ModelFacts, path: Path) -> None:
        save_tiled(model, facts, path, resolution)

    assumed = f"resolution: {RESOLUTION:g} cm per pixel, as nothing else was given: --resolution of the training images"
    return as_onnx(save, adapt=tiled_plan, notes=lambda facts: [] if resolution else [assumed])


def pages(runtime: WebRuntime) -> Format:
    """Pages with a model and this runtime inside."""

    def adapt(plan: Plan) -> Plan:
        if problem := page_problem(plan.facts):
            raise UserError(f"no page can be written: {problem}")
        return plan.adding(*page_outputs(plan.facts))

    def save(model: Any, facts: ModelFacts, path: Path) -> None:
        write_metadata(model, facts.texts())
        page = html_page(model.SerializeToString(), facts, runtime, path.stem, resizing_model(facts))
        path.write_text(page, encoding="utf-8")

    return as_onnx(save, adapt=adapt)


def bundles(ort_web: str | Path | None) -> Format:
    """Bundles, with a page where onnxruntime-web is at hand."""
    runtime = None if ort_web is None and cached(PACKAGE) is None else read_runtime(ort_web)

    def save(model: Any, facts: ModelFacts, path: Path) -> None:
        save_bundle(model, facts, path, runtime)

    def notes(facts: ModelFacts) -> list[str]:
        reason = page_problem(facts) or (None if runtime else f"it contains {PACKAGE}: {HELP}")
        return [f"without index.html: {reason}"] if reason else []

    return as_onnx(save, adapt=lambda plan: plan.adding(*page_outputs(plan.facts)), notes=notes)


def with_logits_of_windows(plan: Plan) -> Plan:
    """A plan with the output that its caller averages, for a model that runs in windows."""
    return plan.adding("logits") if plan.facts.windows else plan


def example_of(plan: Plan) -> torch.Tensor:
    """Images for the tracer, of the plan's size if it has one."""
    _, height, width = EXAMPLE
    height, width = plan.facts.size or (height, width)
    kind = getattr(torch, plan.facts.image_type)
    return torch.randint(0, 255, (EXAMPLE[0], height, width, plan.facts.bands)).to(kind)


def make_onnx(plan: Plan, folder: Path) -> Any:
    """Make an ONNX model for ONNX Runtime; with other outputs than labels the logits would have to be transposed."""
    if not compares_alone(plan):
        return onnx_of(plan, argmax)
    return onnx_of(plan, argmax_of_possible(last=True) if has_many_classes(plan) else argmax_of_last)


def onnx_for_openvino(plan: Plan) -> Any:
    """Make the ONNX model that becomes an OpenVINO one, which keeps no tensor that leads to no output."""
    if compares_alone(plan) and has_many_classes(plan):
        return onnx_of(plan, argmax_of_possible(last=False), SMALL_LOGITS)
    return onnx_of(plan, argmax_by_comparison)


def compares_alone(plan: Plan) -> bool:
    """Return whether nothing but the class map is made of a model's logits, which are resized once."""
    return plan.facts.outputs == ["labels"] and not plan.graph.resizings


def has_many_classes(plan: Plan) -> bool:
    """Return whether finding the classes that an image can have takes less time than comparing all."""
    return len(plan.facts.classes) >= MANY_CLASSES


def onnx_of(plan: Plan, largest: Largest, logits: str = "logits") -> Any:
    return to_onnx(plan.graph.changed(largest=largest), example_of(plan), plan.facts.size, logits)


def quantize_as_onnx(plan: Plan, images: Images, left_out: Sequence[str], folder: Path) -> Any:
    return quantize_onnx(make_onnx(plan, folder), images, left_out, folder)


def open_onnx(model: Any, facts: ModelFacts, folder: Path) -> ExportedModel:
    save_onnx(model, facts, folder / "model.onnx")
    return open_model(folder / "model.onnx")


def save_onnx(model: Any, facts: ModelFacts, path: Path) -> None:
    write_metadata(model, facts.texts())
    path.write_bytes(model.SerializeToString())


def save_repository(model: Any, facts: ModelFacts, path: Path) -> None:
    """Write a model repository of Triton; the model in it is called as the file that it comes from."""
    name = re.sub(r"[^\w.-]+", "_", Path(facts.source).stem) or "model"
    save_triton(model, facts, path, name)


def make_openvino(plan: Plan, folder: Path) -> Any:
    """Make an OpenVINO model from the ONNX form."""
    source = folder / "source.onnx"
    source.write_bytes(onnx_for_openvino(plan).SerializeToString())
    return convert_to_openvino(source)


def quantize_as_openvino(plan: Plan, images: Images, left_out: Sequence[str], folder: Path) -> Any:
    return quantize_openvino(onnx_for_openvino(plan), images, left_out, folder)


def open_openvino(model: Any, facts: ModelFacts, folder: Path) -> ExportedModel:
    save_openvino(model, facts, folder / "model.xml")
    return open_model(folder / "model.xml")


def save_openvino(model: Any, facts: ModelFacts, path: Path) -> None:
    """Write the `.xml` file, and beside it the weights in single precision."""
    openvino = import_openvino()
    for key, text in facts.texts().items():
        model.set_rt_info(text, [SECTION, key])
    openvino.save_model(model, os.fspath(path), compress_to_fp16=False)


def make_program(plan: Plan, folder: Path) -> Any:
    """Make a `torch.export` program; it returns logits after its other outputs."""
    dynamic = torch.export.Dim.DYNAMIC
    axes: dict[int, Any] = {0: dynamic} if plan.facts.size else {0: dynamic, 1: dynamic, 2: dynamic}
    graph = plan.graph.with_logits()
    with quiet(), torch.no_grad(), without_asserts(graph):
        try:
            return torch.export.export(graph, (example_of(plan),), dynamic_shapes={"image": axes}, strict=False)
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            reason = first_line(problem).removesuffix('! For more information, run with TORCH_LOGS="+dynamic".')
            raise UserError(f"this model cannot be exported ({reason}){one_size(plan.facts.size)}") from problem


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


def make_compiled(plan: Plan, folder: Path) -> Path:
    """Compile a program for this kind of machine, which takes a minute or two and a C++ compiler."""
    program = make_program(plan, folder)
    metadata = of_program(plan.facts).texts()
    with quiet():
        try:
            found = torch._inductor.aoti_compile_and_package(
                program,
                package_path=os.fspath(folder / "compiled.pt2"),
                inductor_configs={"aot_inductor.metadata": metadata},
            )
        except Exception as problem:  # of the compiler's many
            reason = str(problem).strip().splitlines()[0]
            raise UserError(f"this model cannot be compiled: {reason}; AOTInductor needs a C++ compiler") from problem
    return Path(found)


def open_compiled(package: Path, facts: ModelFacts, folder: Path) -> ExportedModel:
    return open_model(package, trust=True)


def save_compiled(package: Path, facts: ModelFacts, path: Path) -> None:
    """Put a package into its place; its facts are compiled in, apart from the parity, which the report has."""
    shutil.copyfile(package, path)
    remember_program(path)
