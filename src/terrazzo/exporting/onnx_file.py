"""A model as an ONNX file."""

from __future__ import annotations

import ast
import base64
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from terrazzo.errors import UserError, first_line, is_out_of_memory
from terrazzo.exporting.asserts import without_asserts
from terrazzo.exporting.graph import Graph, target_size
from terrazzo.exporting.plan import one_size
from terrazzo.exporting.resizing import resize_image
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.exported_model import is_outside
from terrazzo.inference.onnx_runtime import LOGITS_PART
from terrazzo.transforms import Compose

OPSET = 20
FLOAT = 1  # the format's number of float32
NETWORK = "model."  # begins the names of the nodes between the steps on images and those on logits


def to_onnx(graph: Graph, example: torch.Tensor, size: Sequence[int] | None = None, logits: str = "logits") -> Any:
    """The ONNX model (onnx.ModelProto) of a graph, for images of any size and number, or of `size` alone.

    Its tensors are called as the graph's outputs are; `logits` is the name of those that exist beside them in any case.
    """
    whole = graph.with_logits()
    names = [logits if name == "logits" else name for name in whole.outputs]
    # the exporter's optimizer merges normalisations into weights, always as float32
    program = onnx_program(whole, example, names, size, optimize=graph.network_type == torch.float32)
    outputs = program.model.graph.outputs
    if "logits" not in graph.outputs:
        del outputs[-1]
    for value, shape in zip(outputs, whole.shapes(), strict=False):
        name_axes(value, shape)
    name_axes(program.model.graph.inputs[0], ("N", "H", "W", example.shape[3]))
    return program.model_proto


def onnx_program(
    module: Any, example: torch.Tensor, outputs: Sequence[str], size: Sequence[int] | None, optimize: bool = True
) -> Any:
    """The torch.onnx.ONNXProgram of a module that takes images. Raises UserError where it cannot become one."""
    from terrazzo.exporting.translations import TRANSLATIONS  # which needs an extra

    dynamic = torch.export.Dim.DYNAMIC
    axes = {0: dynamic} if size else {0: dynamic, 1: dynamic, 2: dynamic}
    with quiet(), torch.no_grad(), without_asserts(module):
        try:
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes={"image": axes},
                input_names=["image"],
                output_names=[*outputs],
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                optimize=optimize,
                verbose=False,
            )
        except Exception as problem:  # of several classes of torch's exporter
            cause = problem.__cause__ or problem
            if is_out_of_memory(cause):
                raise cause from None
            reason = first_line(cause).removesuffix(". See the stack trace for more information.")
            raise UserError(
                f"this model cannot become an ONNX file ({reason}); try a program (.pt2){one_size(size)}"
            ) from problem
    name_nodes(program.model)
    return program


class ResizedImages(torch.nn.Module):
    """Images (N, H, W, C) after the steps of a pipeline that resize them, of the same type."""

    def __init__(self, steps: Sequence[Any]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2)
        for step in self.steps:
            x = resize_image(x, target_size(step, x.shape[2], x.shape[3]))
        return x.permute(0, 2, 3, 1)


def resizing_model(facts: ModelFacts) -> bytes | None:
    """The ONNX model of the resizing before windows are cut, or None for a model without it."""
    steps = Compose([step for step in facts.pipeline if not is_outside(step)]).as_written()
    if not steps:
        return None
    example = torch.zeros(2, 61, 83, facts.bands, dtype=getattr(torch, facts.image_type))
    return onnx_program(ResizedImages(steps), example, ["resized"], None).model_proto.SerializeToString()


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
    """Set an ONNX model's `metadata_props`; the nodes for other outputs than the graph's go there too."""
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key == LOGITS_PART}
    if further := set_apart(model):
        kept[LOGITS_PART] = base64.b64encode(further).decode()
    del model.metadata_props[:]
    for key, text in {**texts, **kept}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text


def set_apart(model: Any) -> bytes:
    """Take the nodes out of a graph that none of its outputs needs, which ONNX Runtime computes all the same.

    Returns the bytes that put them back, and "logits" among the outputs, when they are appended to the file.
    """
    graph, needed = model.graph, {output.name for output in model.graph.output}
    unneeded = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            unneeded.append(node)
        else:
            needed.update(inputs_of(node))
    if not unneeded:
        return b""
    further = type(model)()
    further.graph.node.extend(reversed(unneeded))
    further.graph.output.add(name="logits").type.tensor_type.elem_type = FLOAT
    for node in unneeded:
        graph.node.remove(node)
    return further.SerializeToString()


def inputs_of(node: Any) -> set[str]:
    """The names of the tensors that a node reads, those in its branches included."""
    branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return {*node.input, *(name for branch in branches for inner in branch.node for name in inputs_of(inner))}


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
