"""Exports in lower precision: what is quantized, what stays, and which one is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

import terrazzo as tz
from support.exports import need, random_segmenter
from support.tiny import street
from terrazzo.errors import UserError
from terrazzo.exporting import formats
from terrazzo.exporting.onnx_file import NETWORK
from terrazzo.exporting.plan import make_plan
from terrazzo.exporting.precision import Attempt, attempts
from terrazzo.exporting.sensitivity import layer_errors


def same_labels(one, other):
    images = [street(seed)[0] for seed in range(100, 104)]
    return np.mean([(one(image).labels == other(image).labels).mean() for image in images])


def test_int8_of_onnx_is_the_network_alone(exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    report = tz.export(exported.best, tmp_path / "m.onnx", precision="int8", check=exported.config, max_drop=5)
    assert report.precision == "int8" and report.comparison is not None and not report.refused
    assert report.parity["training images"]["images"] == 6
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.report.html", "m.onnx.report.json"}
    nodes = onnx.load(report.path).graph.node
    quantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    readers = [node for node in nodes if quantized.intersection(node.input)]
    assert len([node for node in readers if node.op_type == "Conv"]) > 3
    assert all(node.name.startswith(NETWORK) for node in readers)
    made = tz.load(report.path)
    facts = made.runtime.facts
    assert facts.precision == "int8" and facts.quantization == {"calibration_images": 6, "left_out": []}
    assert facts.parity["validation"]["images"] == 3
    assert same_labels(made, tz.load(exported.best, device="cpu")) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_openvino_in_lower_precision(precision, exported, tmp_path):
    need("openvino")
    pytest.importorskip("nncf")
    report = tz.export(exported.best, tmp_path / "m.xml", precision=precision, check=exported.config, max_drop=5)
    made = tz.load(report.path)
    assert made.runtime.facts.precision == report.precision == precision
    assert same_labels(made, tz.load(exported.best, device="cpu")) > 0.97
    kinds = {str(port.get_element_type()) for node in made.runtime.session.model.get_ops() for port in node.outputs()}
    assert any(("bfloat16" if precision == "bf16" else "int8_t") in kind for kind in kinds), kinds


@pytest.mark.slow
def test_a_program_of_torch_in_bf16(exported, tmp_path):
    report = tz.export(exported.best, tmp_path / "m.pt2", precision="bf16")
    assert "not scored: give --check CONFIG" in str(report)
    assert same_labels(tz.load(report.path), tz.load(exported.best, device="cpu")) > 0.97


def lose_int8(monkeypatch, passes):
    """Calibrate 8-bit models on black images, which fit no other, unless `passes` allows the layers left out."""
    quantize = formats.quantize_onnx

    def blind(model, images, left_out, folder):
        images = images if passes(left_out) else [np.zeros_like(image) for image in images]
        return quantize(model, images, left_out, folder)

    monkeypatch.setattr(formats, "quantize_onnx", blind)


@pytest.mark.slow
@pytest.mark.parametrize(("passes", "taken"), [(lambda left_out: len(left_out) > 0, "int8"), (lambda _: False, "f32")])
def test_auto_takes_the_first_that_passes(passes, taken, exported, tmp_path, monkeypatch):
    need("onnx")
    lose_int8(monkeypatch, passes)
    report = tz.export(exported.best, tmp_path / "m.onnx", precision="auto", check=exported.config, max_drop=5)
    assert report.precision == taken and (len(report.left_out) > 0) == (taken == "int8")
    assert any("road: " in reason for reason in report.refused["int8"])
    assert "int8 was refused: " in str(report) and "int8 was refused" not in str(exported.report)
    with pytest.raises(UserError, match=r"worse than the original.*in int8: .*--precision auto") as refused:
        tz.export(exported.best, tmp_path / "out" / "m.onnx", precision="int8", check=exported.config)
    assert "road: " in str(refused.value) and not list((tmp_path / "out").iterdir())


def test_the_layer_that_8_bits_harm_is_found():
    segmenter = random_segmenter()
    graph = make_plan(segmenter, ["labels"], None).graph
    images = [street(seed)[0][None] for seed in range(2)]
    before = layer_errors(graph, images)
    worst, name = max(before.values()), list(before)[-1]
    assert 0 < worst < 0.05 and all(layer.startswith(NETWORK) for layer in before)
    weight = graph.get_submodule(name).weight
    with torch.no_grad():
        weight.flatten(1)[:, 0] *= 1e4  # one value so large that 8 bits lose the others
    assert next(iter(layer_errors(graph, images))) == name


def test_the_order_of_precisions():
    assert list(map(str, attempts("auto", ["int8", "bf16", "f32"], gated=True))) == [
        "int8",
        "int8 without the most sensitive 10%",
        "int8 without the most sensitive 30%",
        "bf16",
        "f32",
    ]
    assert attempts("bf16", ["bf16", "f32"], gated=False) == [Attempt("bf16")]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.onnx", {"precision": "int4"}, "'int4' is unknown.*f32, bf16, int8, auto"),
        ("m.onnx", {"precision": "bf16"}, "no bfloat16 on processors: use --precision int8, or --to openvino"),
        ("m.pt2", {"precision": "int8"}, "no form in 8-bit integers: use --to onnx or --to openvino"),
        ("m.onnx", {"precision": "auto"}, "give --check CONFIG"),
        ("m.xml", {"precision": "int8"}, "calibrated on training images: give --check CONFIG, .* or --config CONFIG"),
    ],
)
def test_what_cannot_be_made_is_said_first(name, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        tz.export(random_segmenter(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, empty: config.pop("train_dataloader"), "no train_dataloader"),
        (lambda config, empty: config["train_dataloader"]["dataset"].update(data_root=str(empty)), "images"),
    ],
)
def test_a_config_without_training_images(change, message, exported, tmp_path):
    config = yaml.safe_load(exported.config.read_text())
    (tmp_path / "empty" / "images" / "train").mkdir(parents=True)
    change(config, tmp_path / "empty")
    with pytest.raises(UserError, match=message):
        tz.export(exported.best, tmp_path / "out" / "m.onnx", precision="int8", check=config)
    assert not (tmp_path / "out").exists()


def test_training_images_of_another_size(exported, tmp_path):
    with pytest.raises(UserError, match=r"8-bit files are calibrated .* not 40x56 as --size"):
        tz.export(exported.best, tmp_path / "m.onnx", precision="int8", size=(40, 56), config=exported.config)
    assert not list(tmp_path.iterdir())
