"""A model as an ONNX file."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from terrazzo.errors import UserError
from terrazzo.exporting.graph import Graph

OPSET = 20
NETWORK = "model."  # begins the names of the nodes between the steps on images and those on logits


def to_onnx(graph: Graph, example: torch.Tensor, size: Sequence[int] | None = None) -> Any:
    """The ONNX model (onnx.ModelProto) of a graph, for images of any size and number, or of `size` alone.

    Its tensors are called as the graph's outputs are; "logits" exists beside them in any case.
    """
    from terrazzo.exporting.translations import TRANSLATIONS  # which needs an extra

    dynamic = torch.export.Dim.DYNAMIC
    axes = {0: dynamic} if size else {0: dynamic, 1: dynamic, 2: dynamic}
    whole = graph.with_logits()
    with quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                dynamic_shapes={"image": axes},
                input_names=["image"],
                output_names=[*whole.outputs],
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                optimize=graph.network_type == torch.float32,  # merges normalisations into weights, always as float32
                verbose=False,
            )
        except Exception as problem:  # of several classes of torch's exporter
            cause = problem.__cause__ or problem
            raise UserError(f"this model cannot become an ONNX file: {str(cause).splitlines()[0]}") from problem
    outputs = program.model.graph.outputs
    if "logits" not in graph.outputs:
        del outputs[-1]
    for value, shape in zip(outputs, whole.shapes(), strict=False):
        name_axes(value, shape)
    name_axes(program.model.graph.inputs[0], ("N", "H", "W", example.shape[3]))
    name_nodes(program.model)
    return program.model_proto


def name_nodes(model: Any) -> None:
    """Begin the names of the network's nodes with their modules, "model.decode_head.conv_seg/node_conv2d_75".

    The exporter's notes go: they name files of this machine.
    """
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        modules = [scope for scope in scopes[:-1] if scope.startswith(NETWORK)]
        if modules and not modules[0].startswith(f"{NETWORK}preprocess"):
            node.name = f"{modules[-1]}/{node.name}"
    for part in (model, model.graph, *model.functions.values()):
        part.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def name_axes(value: Any, shape: Sequence[int | str]) -> None:
    """Give the open axes of a value the names that a reader expects."""
    import onnx_ir

    known = [item if isinstance(item, int) else None for item in value.shape]
    value.shape = onnx_ir.Shape([name if size is None else size for name, size in zip(shape, known, strict=True)])


def write_metadata(model: Any, texts: Mapping[str, str]) -> None:
    """Set an ONNX model's `metadata_props`."""
    del model.metadata_props[:]
    for key, text in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes of torch's exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
