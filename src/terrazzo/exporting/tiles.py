"""ONNX files for the QGIS plugin Deepness and for geodeep, which cut maps into square tiles and join the results.

Both give a model float32 tiles (N, 3, S, S) from 0 to 1 in RGB order, and read class probabilities (N, K, S, S).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError, nearest
from terrazzo.exporting.onnx_file import write_metadata
from terrazzo.exporting.plan import Plan
from terrazzo.inference.exported import TILED, ModelFacts

READERS = ("deepness",)
RESOLUTION = 10.0  # centimetres per pixel: what geodeep assumes
TILE = 512  # pixels
OVERLAP = 15  # percent of a tile's edge


def check_reader(name: str, target: str, resolution: float | None) -> None:
    """Raise UserError for a reader of models that is unknown, or does not read this format."""
    if name not in READERS:
        raise UserError(f"--for: '{name}' is unknown{nearest(name, READERS)}; give {', '.join(READERS)}")
    if target != "onnx":
        raise UserError(f"--for {name} writes an .onnx file, not --to {target}")
    if resolution is not None and not 0 < resolution < float("inf"):
        raise UserError(f"--resolution is in centimetres per pixel, above 0, not {resolution}")


def tiled_plan(plan: Plan) -> Plan:
    """The plan for tiles of one size, which replace windows and the test pipeline's resizing.

    Raises UserError for a model of other images, and for a size that is not square.
    """
    facts = plan.facts
    if facts.bands != 3 or facts.image_type != "uint8":
        raise UserError("Deepness and geodeep read 8-bit RGB images, and the model takes others")
    crop = facts.windows.get("crop_size", (TILE, TILE))
    size = list(facts.size or (crop if crop[0] == crop[1] else (TILE, TILE)))
    if size[0] != size[1]:
        raise UserError(
            f"--for deepness: tiles are square, such as --size {size[0]}x{size[0]}, not {size[0]}x{size[1]}"
        )
    names = list(dict.fromkeys((*facts.outputs, "probabilities")))
    return Plan(plan.graph.changed(outputs=names, resizings=()), replace(facts, outputs=names, size=size))


def save_tiled(model: Any, facts: ModelFacts, path: Path, resolution: float | None) -> None:
    """Write an ONNX model of images as one of tiles, with the metadata that its readers expect."""
    assert facts.size is not None
    read_tiles(model, facts.size[0])
    scores = scores_of(model, facts.threshold)
    del model.graph.output[:]
    model.graph.output.append(scores)
    overlap = OVERLAP
    if facts.windows:
        overlap = round(100 * (1 - facts.windows["stride"][0] / facts.windows["crop_size"][0]))
    keys = {
        TILED: "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(facts.classes)},
        "resolution": RESOLUTION if resolution is None else resolution,
        "tiles_size": facts.size[0],
        "tiles_overlap": overlap,
        "standardization_mean": [0.0, 0.0, 0.0],  # the model normalises by itself
        "standardization_std": [1.0, 1.0, 1.0],
        "seg_thresh": 0.0,  # the likeliest class
    }
    write_metadata(model, facts.texts() | {key: json.dumps(value) for key, value in keys.items()})
    path.write_bytes(model.SerializeToString())


def read_tiles(model: Any, size: int) -> None:
    """Let a model that takes images uint8 (N, S, S, 3) take tiles float32 (N, 3, S, S)."""
    from onnx import TensorProto, helper, numpy_helper

    image = model.graph.input[0].name
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "tiles.white"))
    nodes = [
        helper.make_node("Mul", ["tiles", "tiles.white"], ["tiles.scaled"]),
        helper.make_node("Round", ["tiles.scaled"], ["tiles.rounded"]),
        helper.make_node("Cast", ["tiles.rounded"], ["tiles.bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["tiles.bytes"], [image], perm=[0, 2, 3, 1]),
    ]
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("tiles", TensorProto.FLOAT, ["N", 3, size, size]))


def scores_of(model: Any, threshold: float | None) -> Any:
    """The output of class probabilities; with a threshold those of two classes, moved so that it is at a half."""
    from onnx import helper, numpy_helper

    output = next(value for value in model.graph.output if value.name == "probabilities")
    if threshold is None:
        return output
    threshold = min(max(threshold, 1e-6), 1 - 1e-6)
    values = {"one": 1, "below": 0.5 / threshold, "above": 0.5 / (1 - threshold)}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), f"moved.{name}"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "moved.foreground"))

    def add(kind: str, inputs: str, to: str, **attributes: Any) -> None:
        names = [name if name == "probabilities" else f"moved.{name}" for name in inputs.split()]
        model.graph.node.append(helper.make_node(kind, names, [f"moved.{to}"], **attributes))

    add("Gather", "probabilities foreground", "p", axis=1)
    add("Mul", "p below", "lower")  # to a half at the threshold
    add("Sub", "one p", "rest")
    add("Mul", "rest above", "scaled")
    add("Sub", "one scaled", "upper")  # from a half at the threshold
    add("Min" if threshold < 0.5 else "Max", "lower upper", "q")
    add("Sub", "one q", "background")
    add("Concat", "background q", "scores", axis=1)
    output.name = "moved.scores"
    return output
