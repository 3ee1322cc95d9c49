"""A model as an ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from terrazzo.errors import UserError, first_line
from terrazzo.exporting.graph import Graph
from terrazzo.system.failures import is_out_of_memory

OPSET = 20


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
                verbose=False,
            )
        except Exception as problem:  # of several classes of torch's exporter
            cause = problem.__cause__ or problem
            if is_out_of_memory(cause):
                raise cause from None
            raise UserError(f"this model cannot become an ONNX file: {first_line(cause)}") from problem
    outputs = program.model.graph.outputs
    if "logits" not in graph.outputs:
        del outputs[-1]
    for value, shape in zip(outputs, whole.shapes(), strict=False):
        name_axes(value, shape)
    name_axes(program.model.graph.inputs[0], ("N", "H", "W", example.shape[3]))
    return program.model_proto


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
