"""Networks in 8-bit integers: weights per channel, activations per tensor, their ranges measured on images."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError, is_out_of_memory
from terrazzo.exporting.onnx_file import NETWORK, quiet
from terrazzo.inference.openvino_runtime import import_openvino, last_line
from terrazzo.system.extras import import_extra

# of convolutional networks; others are quantized in their products alone, since sums of a transformer's layers and its
# normalisations need more than 8 bits
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN = ("Add", "Concat", "Relu", "MaxPool", "Resize")


def quantize_onnx(model: Any, images: Sequence[np.ndarray], left_out: Sequence[str], folder: Path) -> Any:
    """The ONNX model in 8-bit integers by ONNX Runtime's static quantization, without the modules `left_out`.

    Its ranges are those of `images`, each (1, H, W, C). Only the network is quantized, its logits are not. Raises
    UserError where nothing can be.
    """
    quantization = import_extra("onnxruntime.quantization", "export", "8-bit ONNX files")
    onnx = import_extra("onnx", "export", "ONNX exports")
    folded = folded_onnx(model, folder)
    kinds = PRODUCTS if is_transformer(folded) else PRODUCTS + BETWEEN
    chosen = {
        node.name
        for node in folded.graph.node
        if node.name.startswith(NETWORK) and node.op_type in kinds and module_of(node.name) not in left_out
    }
    if not chosen:
        raise UserError("this network has no layer that can be quantized: use --precision f32")

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.remaining: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"image": image}

    path = folder / "int8.onnx"
    with quiet(), silent():
        quantization.quantize_static(
            folded,
            path,
            Images(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=list(kinds),
            nodes_to_quantize=sorted(chosen),
            extra_options={"CalibMovingAverage": True, "QDQKeepRemovableActivations": True},
        )
    made = onnx.load(path)
    path.unlink()
    read_unquantized(made, chosen)
    return made


def folded_onnx(model: Any, folder: Path) -> Any:
    """The ONNX model with constants folded and normalisations merged into convolutions, in standard operators."""
    onnxruntime = import_extra("onnxruntime", "export", "8-bit files")
    onnx = import_extra("onnx", "export", "ONNX exports")
    options, path = onnxruntime.SessionOptions(), folder / "folded.onnx"
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = os.fspath(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(path)
    path.unlink()
    return folded


def read_unquantized(model: Any, chosen: set[str]) -> None:
    """Let nodes that are not quantized read the tensors as they are before quantization."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name in chosen or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            back = producers.get(name)
            if back is not None and back.op_type == "DequantizeLinear" and back.input[0] in producers:
                node.input[place] = producers[back.input[0]].input[0]
    while unread := unread_pairs(model):
        for node in unread:
            model.graph.node.remove(node)
    read = {name for node in model.graph.node for name in node.input}
    for value in [value for value in model.graph.initializer if value.name not in read]:
        model.graph.initializer.remove(value)


def unread_pairs(model: Any) -> list[Any]:
    """The quantizations that no node reads."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    pair = ("QuantizeLinear", "DequantizeLinear")
    return [node for node in model.graph.node if node.op_type in pair and not read.intersection(node.output)]


def convert_to_openvino(path: Path) -> Any:
    """The OpenVINO model of an ONNX file; its tensors have the same names. Raises UserError where there is none."""
    openvino = import_openvino()
    try:
        return openvino.convert_model(os.fspath(path))
    except Exception as problem:  # of classes of OpenVINO's own
        if is_out_of_memory(problem):
            raise
        raise UserError(f"this model cannot become an OpenVINO file: {last_line(problem)}") from problem


def quantize_openvino(source: Any, images: Sequence[np.ndarray], left_out: Sequence[str], folder: Path) -> Any:
    """The OpenVINO model of an ONNX model in 8-bit integers, by NNCF; arguments are those of `quantize_onnx`."""
    nncf = import_openvino("nncf", "8-bit OpenVINO files")
    folded = folded_onnx(source, folder)
    path = folder / "folded.onnx"
    path.write_bytes(folded.SerializeToString())
    model = convert_to_openvino(path)
    path.unlink()
    names = {node.name for node in folded.graph.node}
    ignored = [
        name
        for name in (operation.get_friendly_name() for operation in model.get_ops())
        if (known := known_name(name, names)) and (not known.startswith(NETWORK) or module_of(known) in left_out)
    ]
    with quiet(), silent():
        nncf.set_log_level(50)
        return nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer(folded) else None,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def known_name(name: str, known: set[str]) -> str | None:
    """The ONNX node that an OpenVINO operation comes from: its name may end in a part such as "/WithoutBiases"."""
    return name if name in known else next((part for part in [name.rpartition("/")[0]] if part in known), None)


def module_of(name: str) -> str:
    """The module in a node's name."""
    return name.partition("/")[0]


def is_transformer(model: Any) -> bool:
    """Return True for an ONNX network that normalises layers or has attention."""
    return any(
        node.op_type in ("Softmax", "LayerNormalization") and node.name.startswith(NETWORK) for node in model.graph.node
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the progress bars of libraries."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
