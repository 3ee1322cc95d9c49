"""Exported files beside the models that they come from."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
import torch

import terrazzo as tz
from support.exports import SIZES, need, picture, random_segmenter, set_windows
from terrazzo.errors import UserError
from terrazzo.exporting import formats
from terrazzo.exporting.onnx_file import OPSET
from terrazzo.exporting.trial import SIZES as COMPARED

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def like_original(segmenter, path, sizes=SIZES, bands=3, share=1.0):
    """Check labels and probabilities of a file against its original's, and return its Segmenter."""
    exported = tz.load(path)
    for size in sizes:
        image = picture(*size, bands)
        one, other = segmenter(image), exported(image)
        assert one.labels.shape == other.labels.shape == size and one.labels.dtype == other.labels.dtype
        assert (one.labels == other.labels).mean() >= share, size
        assert np.abs(one.probs - other.probs).max() < 1e-4, size
        assert len(np.unique(one.labels)) > 1, "the comparison says nothing"
    return exported


@pytest.mark.parametrize("target", SUFFIXES)
def test_right_at_every_size(target, tmp_path):
    need(target)
    segmenter = random_segmenter()
    report = tz.export(segmenter, tmp_path / f"m{SUFFIXES[target]}")
    exported = like_original(segmenter, report.path)
    assert exported.classes == segmenter.classes and exported.palette == segmenter.palette
    assert set(report.parity) == {f"{height}x{width}" for height, width in COMPARED}
    assert all(row["labels"] == 1 and row["logits"] < 1e-4 for row in report.parity.values())
    assert json.loads((tmp_path / f"m{SUFFIXES[target]}.report.json").read_text())["target"] == target
    names = {"onnx": ["m.onnx"], "openvino": ["m.bin", "m.xml"]}[target]
    assert sorted(path.name for path in tmp_path.iterdir() if ".report" not in path.name) == names


def test_padding_is_in_the_graph(tmp_path):
    need("onnx")

    def change(model):
        model["data_preprocessor"]["test_cfg"] = {"size_divisor": 32}

    segmenter = random_segmenter(change=change)
    tz.export(segmenter, tmp_path / "m.onnx")
    like_original(segmenter, tmp_path / "m.onnx")


@pytest.mark.parametrize("target", [pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_many_classes_are_compared_where_they_can_be_the_largest(target, tmp_path):
    need(target)

    def change(model):
        model["data_preprocessor"]["test_cfg"] = {"size_divisor": 32}

    segmenter = random_segmenter(change=change, num_classes=40, align_corners=target == "openvino")
    tz.export(segmenter, tmp_path / f"m{SUFFIXES[target]}")
    like_original(segmenter, tmp_path / f"m{SUFFIXES[target]}")


@pytest.mark.parametrize("classes", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_the_graph_of_a_file_computes_nothing_that_no_output_needs(classes, tmp_path):
    """ONNX Runtime would run it: resized logits take as long as all the rest after the network."""
    need("onnx")
    import onnx

    segmenter = random_segmenter(num_classes=classes)
    tz.export(segmenter, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert [node.name for node in graph.node if read.isdisjoint(node.output)] == []
    like_original(segmenter, tmp_path / "m.onnx")  # whose probabilities come from the logits all the same


def test_inputs_outputs_and_facts_of_a_file(exported):
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    model = onnx.load(exported.onnx)
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert facts["classes"] == ["sky", "road", "car"] and len(facts["palette"]) == 3 and facts["bands"] == 3
    assert facts["outputs"] == ["labels", "confidence"] and facts["precision"] == "f32" and facts["threshold"] is None
    assert facts["preprocessing"]["mean"] == [120.0] * 3 and facts["source"] == "best.safetensors"
    assert set(facts["parity"]) == {f"{height}x{width}" for height, width in COMPARED}
    assert {item.domain: item.version for item in model.opset_import}[""] == OPSET

    session = onnxruntime.InferenceSession(exported.onnx, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", "H", "W", 3])
    assert [(value.name, value.type, value.shape) for value in session.get_outputs()] == [
        ("labels", "tensor(uint8)", ["N", "H", "W"]),
        ("confidence", "tensor(float)", ["N", "H", "W"]),
    ]
    images = np.stack([picture(31, 57, seed=seed) for seed in range(3)])
    labels, confidence = session.run(None, {"image": images})
    for index, image in enumerate(images):
        prediction = tz.load(exported.best, device="cpu")(image)
        assert np.array_equal(labels[index], prediction.labels)
        assert np.allclose(confidence[index], prediction.confidence, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("target", SUFFIXES)
def test_all_outputs_at_one_size(target, tmp_path):
    need(target)
    segmenter = random_segmenter()
    path = tmp_path / f"m{SUFFIXES[target]}"
    outputs = ["logits", "labels", "probabilities", "confidence"]
    tz.export(segmenter, path, size=(40, 56), outputs=outputs)
    exported = like_original(segmenter, path, [(40, 56)])
    session, image = exported.runtime.session, picture(40, 56)[None]
    assert session.facts.outputs == ["labels", "logits", "probabilities", "confidence"]
    probabilities = session.run(image, "probabilities")
    assert np.allclose(probabilities, torch.from_numpy(session.run(image, "logits")).softmax(1).numpy(), atol=1e-6)
    assert np.allclose(session.run(image, "confidence"), probabilities.max(1), atol=1e-6)
    with pytest.raises(UserError, match="40x56 pixels alone, not 32x40: export it without --size"):
        exported(picture(32, 40))


@pytest.mark.slow
def test_one_channel_and_its_threshold(tmp_path):
    need("onnx")
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    segmenter = random_segmenter(num_classes=2, out_channels=1, threshold=0.6, loss_decode=loss)
    foreground = segmenter(picture(47, 129)).probs[1]
    with torch.no_grad():  # about half of the pixels are above the threshold
        segmenter.model.decode_head.conv_seg.bias += np.log(1.5) - float(
            np.median(np.log(foreground / (1 - foreground)))
        )
    tz.export(segmenter, tmp_path / "m.onnx", outputs=["labels", "probabilities"])
    exported = like_original(segmenter, tmp_path / "m.onnx")
    assert exported.runtime.threshold == 0.6
    assert exported.runtime.session.run(picture(31, 57)[None], "probabilities").shape == (1, 2, 31, 57)


@pytest.mark.slow
def test_resizing_is_in_the_graph(tmp_path):
    need("onnx")
    steps = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (96, 48), "keep_ratio": True}]
    segmenter = random_segmenter(steps)
    tz.export(segmenter, tmp_path / "m.onnx")
    exported = like_original(segmenter, tmp_path / "m.onnx", share=0.999)
    assert [step["type"] for step in exported.steps] == ["LoadImageFromFile"]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "blending"), [("slide", "gaussian"), ("slide_flip", "uniform")])
def test_windows_are_left_to_the_caller(mode, blending, tmp_path):
    need("onnx")
    segmenter = random_segmenter(change=set_windows(mode, blending))
    tz.export(segmenter, tmp_path / "m.onnx")
    exported = like_original(segmenter, tmp_path / "m.onnx", share=0.999)
    assert exported.runtime.facts.windows == {"crop_size": [32, 32], "stride": [20, 20], "blending": blending}


@pytest.mark.slow
def test_images_of_more_bands(tmp_path):
    need("onnx")

    def change(model):
        model["backbone"]["in_channels"] = 5
        model["data_preprocessor"] = {"type": "SegDataPreProcessor", "mean": [100.0] * 5, "std": [50.0] * 5}

    reading = [{"type": "LoadSingleRSImageFromFile", "bands": [1, 2, 3, 4, 5]}]
    segmenter = random_segmenter(reading, 5, change)
    tz.export(segmenter, tmp_path / "m.onnx")
    exported = like_original(segmenter, tmp_path / "m.onnx", bands=5)
    assert exported.runtime.facts.image_type == "float32" and exported.runtime.bands == 5
    with pytest.raises(UserError, match="5"):
        exported(picture(32, 40))


@pytest.mark.slow
def test_a_program_of_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    segmenter = random_segmenter()
    report = tz.export(segmenter, tmp_path / "m.pt2", outputs=["labels", "confidence"])
    assert all(row["labels"] == 1 for row in report.parity.values())
    exported = like_original(segmenter, report.path)
    assert exported.runtime.facts.outputs == ["labels", "confidence", "logits"]
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "the home of somebody else"))
    with pytest.raises(UserError, match=r"m\.pt2 is a program, .* --trust-config \(trust=True\)"):
        tz.load(report.path)
    assert tz.load(report.path, trust=True).classes == segmenter.classes


def test_a_program_of_others_is_not_opened_before_it_is_trusted(tmp_path):
    executed = tmp_path / "executed"
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(1),))
    program._guards_code.append(f"__import__('pathlib').Path({str(executed)!r}).touch() or True")
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UserError, match="is a program"):
        tz.load(tmp_path / "m.pt2")
    assert not executed.exists()


@pytest.mark.slow
def test_a_compiled_program(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    segmenter = random_segmenter()
    report = tz.export(segmenter, tmp_path / "m.pt2", to="aotinductor", outputs=["labels", "confidence"])
    assert len(report.parity) == len(COMPARED) and all(row["labels"] == 1 for row in report.parity.values())
    exported = tz.load(report.path)
    for size in SIZES:
        assert np.array_equal(exported(picture(*size)).labels, segmenter(picture(*size)).labels)
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "of_another_user"))
    with pytest.raises(UserError, match=r"is a program.*--trust-config"):
        tz.load(report.path)
    assert tz.load(report.path, trust=True).classes == segmenter.classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path": "m.tflite"},
            r"m.tflite: the suffix names no format: use .pt2, .onnx, .xml, .html, or --to bundle",
        ),
        ({"to": "onx"}, "'onx' is unknown.*onnx"),
        ({"to": "openvino"}, r"--to openvino writes a .xml file, not .*m.onnx"),
        ({"to": "bundle"}, r"--to bundle writes a folder, not .*m.onnx"),
        ({"reader": "qgis"}, "--for: 'qgis' is unknown; give deepness"),
        ({"reader": "deepness", "path": "m.xml"}, "--for deepness writes an .onnx file, not --to openvino"),
        ({"reader": "deepness", "size": (64, 96)}, "tiles are square, such as --size 64x64, not 64x96"),
        ({"reader": "deepness", "resolution": -1.0}, "--resolution is in centimetres per pixel"),
        ({"resolution": 10.0}, "--resolution is for --for"),
        ({"outputs": ["label"]}, "there is no 'label'.*labels"),
        ({"path": "m.html"}, r"terrazzo weights get onnxruntime-web.*--ort-web"),
        ({"path": "m.html", "ort_web": "none.tgz"}, r"none.tgz does not hold"),
    ],
)
def test_what_cannot_be_exported_is_said_first(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        tz.export(random_segmenter(), **({"path": "m.onnx"} | changes))
    assert not list(tmp_path.iterdir())


def test_steps_that_no_graph_contains_are_named(tmp_path):
    steps = [{"type": "LoadImageFromFile"}, {"type": "CLAHE"}]
    with pytest.raises(UserError, match="the test pipeline has CLAHE"):
        tz.export(random_segmenter(steps), tmp_path / "m.onnx")


def test_a_model_of_one_size_is_advised_to_name_it(tmp_path):
    segmenter = random_segmenter()

    def mark_first_column(module, inputs, output):  # by a number that a graph of any size does not have
        return [x + (torch.arange(int(x.shape[3])) == 0) for x in output]

    segmenter.model.backbone.register_forward_hook(mark_first_column)
    with pytest.raises(UserError, match="--size HxW exports it for images of one size"):
        tz.export(segmenter, tmp_path / "m.pt2")
    assert list(tz.export(segmenter, tmp_path / "m.pt2", size=(64, 96)).parity) == ["64x96"]


def test_an_exported_model_is_not_exported_again(exported, tmp_path):
    with pytest.raises(UserError, match="export the checkpoint that it comes from"):
        tz.export(exported.onnx, tmp_path / "again.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to the folder"):
        tz.export(random_segmenter(), tmp_path / "file" / "m.onnx")


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "Permission denied")]
)
def test_a_disk_that_cannot_be_written_leaves_nothing(problem, tmp_path, monkeypatch):
    need("onnx")

    def fail(*arguments):
        raise problem

    monkeypatch.setattr(formats, "save_onnx", fail)
    (tmp_path / "m.onnx").write_text("the file before")
    with pytest.raises(UserError, match=rf"cannot write .*m.onnx: {problem.strerror} .*MiB free"):
        tz.export(random_segmenter(), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "the file before"


def test_a_size_below_the_least(tmp_path):
    need("onnx")
    with pytest.raises(UserError, match="--size 1x1"):
        tz.export(random_segmenter(), tmp_path / "m.onnx", size=(1, 1))
    assert not list(tmp_path.iterdir())
