"""Models as folders: one that runs without terrazzo, and a repository for NVIDIA Triton."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from terrazzo.exporting.html_page import WebRuntime, html_page, page_problem
from terrazzo.exporting.onnx_file import resizing_model, write_metadata
from terrazzo.inference.exported import ModelFacts
from terrazzo.system.printable import as_html, caption

REQUIREMENTS = ("numpy", "pillow", "onnxruntime")  # of segment.py
PAGE = """
`index.html` runs the model in a browser, offline: open it from the disk.
"""
LARGEST_BATCH = 8
TRITON_TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}


def save_bundle(model: Any, facts: ModelFacts, path: Path, runtime: WebRuntime | None) -> None:
    """Write an ONNX model with what runs it: a script, its requirements, a Dockerfile, and a page if it can be one."""
    path.mkdir()
    write_metadata(model, facts.texts())
    content = model.SerializeToString()
    (path / "model.onnx").write_bytes(content)
    resizing = resizing_model(facts)
    if resizing is not None:
        (path / "resize.onnx").write_bytes(resizing)
    has_page = runtime is not None and page_problem(facts) is None
    if runtime is not None and has_page:
        page = html_page(content, facts, runtime, path.name, resizing)
        (path / "index.html").write_text(page, encoding="utf-8")

    sources = files("terrazzo.exporting").joinpath("bundle_files")
    (path / "segment.py").write_bytes(sources.joinpath("segment.py").read_bytes())
    lines = [f"{package}=={version(package)}" for package in REQUIREMENTS]
    (path / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "title": path.name,
        "name": re.sub(r"[^a-z0-9._-]+", "-", path.name.lower()).strip("-._") or "model",
        "page": PAGE if has_page else "",
        "facts": "\n".join(f"- {line}" for line in fact_lines(facts)),
        "classes": "\n".join(
            f"| {index} | {in_table(name)} | {', '.join(map(str, colour))} |"
            for index, (name, colour) in enumerate(zip(facts.classes, facts.palette, strict=True))
        ),
        "input": f"{facts.image_type} (N, H, W, {facts.bands}){' in RGB order' if facts.bands == 3 else ''}",
        "windows": " of one window; `segment.py` averages the `logits` of all" if facts.windows else "",
    }
    for name in ("README.md", "Dockerfile"):
        text = Template(sources.joinpath(name).read_text(encoding="utf-8")).substitute(texts)
        (path / name).write_text(text, encoding="utf-8")


def in_table(name: str) -> str:
    """A name as text in a cell of a Markdown table."""
    return " ".join(as_html(caption(name)).split()).replace("|", r"\|")


def fact_lines(facts: ModelFacts) -> list[str]:
    """The facts about a model that a reader looks for."""
    size = "of any size" if facts.size is None else "of {}x{} pixels".format(*facts.size)
    lines = [f"Written by terrazzo {facts.terrazzo} from {facts.source}" if facts.source else "", f"Images {size}"]
    if facts.windows:
        crop, stride = ("x".join(map(str, facts.windows[key])) for key in ("crop_size", "stride"))
        lines.append(f"Windows of {crop} pixels every {stride}")
    if facts.parity:
        same = min(row["labels"] for row in facts.parity.values() if "labels" in row)
        lines.append(f"Same labels as the original on {100 * same:.3f}% of pixels or more; precision {facts.precision}")
    if scored := facts.parity.get("validation"):
        before, after = scored["mIoU"]
        lines.append(f"mIoU on {scored['images']} validation images: {after:.2f}, of the original {before:.2f}")
    if facts.licence:
        lines.append(f"Licence of the weights: {facts.licence}")
    return [line for line in lines if line]


def save_triton(model: Any, facts: ModelFacts, path: Path, name: str) -> None:
    """Write a model repository with the model `name` of version 1, that batches requests of one size."""
    version_folder = path / name / "1"
    version_folder.mkdir(parents=True)
    write_metadata(model, facts.texts())
    (version_folder / "model.onnx").write_bytes(model.SerializeToString())
    (path / name / "config.pbtxt").write_text(triton_config(model, facts, name), encoding="utf-8")


def triton_config(model: Any, facts: ModelFacts, name: str) -> str:
    """The configuration of a model in Triton, in the text format of protocol buffers."""
    import onnx

    def tensor(value: Any) -> str:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        dims = [item.dim_value or -1 for item in value.type.tensor_type.shape.dim][1:]  # without the batch
        return f'  {{ name: "{value.name}" data_type: {TRITON_TYPES[kind]} dims: {dims} }}'

    kept = {key: text for key, text in facts.texts().items() if key in ("classes", "palette", "windows", "threshold")}
    parameters = [
        f'parameters {{ key: "{key}" value {{ string_value: {quoted(text)} }} }}' for key, text in kept.items()
    ]
    inputs, outputs = (",\n".join(map(tensor, values)) for values in (model.graph.input, model.graph.output))
    return "\n".join(
        [
            f"name: {quoted(name)}",
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {LARGEST_BATCH}",
            f"input [\n{inputs}\n]",
            f"output [\n{outputs}\n]",
            "dynamic_batching { max_queue_delay_microseconds: 1000 }",
            *parameters,
            "",
        ]
    )


def quoted(text: str) -> str:
    """A string of the text format; a backslash and a quotation mark are all that JSON leaves to escape."""
    return json.dumps(text, ensure_ascii=False)
