"""ONNX files, run by ONNX Runtime. This module imports no torch."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.exported import ModelFacts
from terrazzo.system.extras import import_extra
from terrazzo.system.memory import release_freed_memory

CODE = re.compile(r"^.*\] : \d+ : \w+ : ")  # begins the library's messages
LOGITS_PART = "logits_part"  # of the metadata: what makes the logits an output when it is appended, in base64
LIMIT = 2 << 30  # bytes; the format has no larger files


class OnnxSession:
    """One ONNX file; each output is run by a session of its own, which computes nothing for the others."""

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            if size >= LIMIT:
                raise UserError(f"{path} is not an ONNX file: it has {size:,} bytes")
            with self.path.open("rb"):
                pass
        except OSError as problem:
            raise UserError(f"cannot read {path}: {problem.strerror}") from None
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        self.sessions: dict[str, Any] = {}
        session = self.session("labels")
        texts = session.get_modelmeta().custom_metadata_map
        self.facts = ModelFacts.read(texts, path)
        self.logits_part = base64.b64decode(texts.get(LOGITS_PART, ""))
        self.input = self.check(session)

    def check(self, session: Any) -> str:
        """The name of the input. Raises UserError for a graph that does not begin with stored images."""
        inputs, kind = session.get_inputs(), f"tensor({self.facts.image_type.replace('float32', 'float')})"
        outputs = [output.name for output in session.get_outputs()]
        taken = [f"{item.name} {item.type}{item.shape}" for item in inputs]
        if len(inputs) == 1 and inputs[0].type == kind and len(inputs[0].shape) == 4 and "labels" in outputs:
            return str(inputs[0].name)
        raise UserError(
            f"{self.path} takes {', '.join(taken) or 'nothing'} and gives {', '.join(outputs)}: it must take images "
            f"{kind} (N, H, W, {self.facts.bands}) as they are stored and give `labels` (N, H, W), with its "
            "preprocessing and argmax inside; export the model with `terrazzo export`"
        )

    def session(self, output: str) -> Any:
        """The session that computes an output."""
        if output not in self.sessions:
            onnxruntime = import_extra("onnxruntime", "export", "ONNX files")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 4
            options.enable_mem_pattern = False  # images differ in size; a pattern costs a third of the memory
            source: Any = os.fspath(self.path)  # read by the library, which then holds it once
            try:
                if output != "labels":
                    source = self.path.read_bytes() + (self.logits_part or graph_output(output))
                session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception as problem:  # of classes that share no base
                raise UserError(
                    f"{self.path} cannot be run: {first_line(problem)}; if it is damaged, export the model again"
                ) from None
            release_freed_memory()  # of the parsed file and of weights in their stored order
            self.sessions[output] = session
        return self.sessions[output]

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        session = self.session(output)
        try:
            return session.run([output], {self.input: images})[0]
        except Exception as problem:
            shape = "x".join(map(str, images.shape))
            raise UserError(f"{self.path} does not run on images of {shape}: {first_line(problem)}") from None


def graph_output(name: str) -> bytes:
    """The bytes that make a float tensor of a graph one of its outputs when they are appended to an ONNX file.

    Messages of protocol buffers are joined by joining their bytes: `ModelProto(graph=GraphProto(output=[...]))`.
    """

    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    tensor = part(2, part(1, b"\x08\x01"))  # ValueInfoProto.type, TypeProto.tensor_type, elem_type = FLOAT
    return part(7, part(12, part(1, name.encode()) + tensor))


def first_line(problem: Exception) -> str:
    """The first line of a library's message, without its code."""
    lines = str(problem).strip().splitlines() or ["unknown error"]
    return CODE.sub("", lines[0])[:300]
