"""Exported folders: a bundle in an environment of its own, and a repository for Triton."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.exports import need, picture, random_segmenter, set_windows
from terrazzo.exporting.folders import in_table
from terrazzo.exporting.formats import bundles, save_repository
from terrazzo.inference.exported import ModelFacts

RESIZED = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (96, 48), "keep_ratio": True}]


# Bundles


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("road\n| 9", r"road \| 9"),
        ("\x1b[2J", r"\u001b[2J"),
        ("a" * 999, f"{'a' * 50} ... {'a' * 50}"),
    ],
)
def test_a_name_stays_in_its_cell(name, shown):
    assert in_table(name) == shown


def write_images(folder: Path) -> None:
    """Pictures of several kinds and sizes, and a file that is none."""
    folder.mkdir()
    for index, size in enumerate([(61, 83), (61, 83), (61, 83), (40, 56)]):
        Image.fromarray(picture(*size, seed=index)).save(folder / f"{index}.png")
    image = Image.fromarray(picture(61, 83, seed=9))
    image.save(folder / "photo.jpg")
    turned = image.getexif()
    turned[274] = 6
    image.save(folder / "turned.jpg", exif=turned)
    image.convert("RGBA").save(folder / "transparent.png")
    image.convert("P").save(folder / "indexed.png")
    image.convert("L").save(folder / "grey.png")
    (folder / "damaged.png").write_text("nothing")


@pytest.fixture(scope="module")
def other_python(tmp_path_factory) -> Path:
    """A Python with what a bundle's requirements.txt lists, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    need("onnx")
    requirements = tz.export(random_segmenter(), folder / "bundle", to="bundle").path / "requirements.txt"
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "-r", requirements]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("pip cannot install a bundle's requirements")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "slide", "slide_flip"])
def test_a_bundle_runs_without_terrazzo(mode, other_python, tmp_path):
    change = (lambda model: None) if mode == "whole" else set_windows(mode)
    segmenter = random_segmenter(RESIZED, change=change)
    bundle = tz.export(segmenter, tmp_path / "street model", to="bundle").path
    write_images(tmp_path / "images")
    command = [other_python, bundle / "segment.py", tmp_path / "images", "--out", tmp_path / "out", "--batch", "2"]
    result = subprocess.run([*command, "--overlay"], cwd="/", env={}, capture_output=True, text=True)
    assert result.returncode == 1 and "damaged.png: cannot identify image file" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    for path in sorted((tmp_path / "images").iterdir()):
        if path.stem != "damaged":
            labels = np.array(Image.open(tmp_path / "out" / f"{path.stem}.png"))
            assert np.array_equal(labels, segmenter(path).labels), path
            assert (tmp_path / "out" / f"{path.stem}_overlay.jpg").is_file()

    code = f"from segment import segment; print(segment({str(tmp_path / 'images' / '0.png')!r}).sum())"
    found = subprocess.run([other_python, "-c", code], cwd=bundle, env={}, capture_output=True, text=True)
    assert int(found.stdout) == segmenter(tmp_path / "images" / "0.png").labels.sum(), found.stderr


def test_what_is_in_a_bundle(exported, tmp_path):
    bundle, path = bundles(None), tmp_path / "street"
    model, facts = of_file(exported.onnx)
    bundle.save(model, facts, path)
    names = {"model.onnx", "segment.py", "requirements.txt", "Dockerfile", "README.md"}
    assert {item.name for item in path.iterdir()} == names
    [note] = bundle.notes(facts)
    assert note.startswith("without index.html") and "terrazzo weights get onnxruntime-web" in note
    lines = (path / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == ["numpy", "pillow", "onnxruntime"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (path / "Dockerfile").read_text().startswith(f"FROM python:{python}-slim")
    assert len((path / "segment.py").read_text().splitlines()) < 200
    readme = (path / "README.md").read_text()
    assert "| 2 | car |" in readme and "$" not in readme.replace("$PWD", "").replace("$(id -u)", "")


def of_file(path):
    """The ONNX model of a file, and its facts."""
    import onnx

    model = onnx.load(path)
    return model, ModelFacts.read({entry.key: entry.value for entry in model.metadata_props}, path)


# Triton


def model_config() -> type:
    """The part of Triton's message ModelConfig that is written, from its documentation."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for number, name in {0: "INVALID", 2: "UINT8", 8: "INT32", 11: "FP32"}.items():
        kinds.value.add(name=f"TYPE_{name}", number=number)
    field = descriptor_pb2.FieldDescriptorProto

    def message(title, /, **fields):
        made = file.message_type.add(name=title)
        for key, (number, kind, repeated) in fields.items():
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            named = {} if isinstance(kind, int) else {"type_name": f".inference.{kind}"}
            known = kind if isinstance(kind, int) else field.TYPE_ENUM if kind == "DataType" else field.TYPE_MESSAGE
            made.field.add(name=key, number=number, type=known, label=label, **named)
        return made

    text, whole, long = field.TYPE_STRING, field.TYPE_INT32, field.TYPE_INT64
    tensor = {"name": (1, text, False), "data_type": (2, "DataType", False)}
    message("ModelInput", **tensor, dims=(4, long, True))
    message("ModelOutput", **tensor, dims=(3, long, True))
    message("ModelDynamicBatching", max_queue_delay_microseconds=(2, field.TYPE_UINT64, False))
    message("ModelParameter", string_value=(1, text, False))
    config = message(
        "ModelConfig",
        name=(1, text, False),
        max_batch_size=(4, whole, False),
        input=(5, "ModelInput", True),
        output=(6, "ModelOutput", True),
        default_model_filename=(8, text, False),
        dynamic_batching=(11, "ModelDynamicBatching", False),
        parameters=(14, "ModelConfig.ParametersEntry", True),
        backend=(17, text, False),
    )
    entry = config.nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=text, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, type_name=".inference.ModelParameter",
        label=field.LABEL_OPTIONAL,
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def test_a_repository_for_triton(exported, tmp_path):
    import onnxruntime
    from google.protobuf import text_format

    model, facts = of_file(exported.onnx)
    facts = replace(facts, windows={"stride": [20, 20]}, classes=["sky", 'ro"ad\\ 道路', "car"])
    save_repository(model, facts, tmp_path / "models")
    config = text_format.Parse((tmp_path / "models" / "best" / "config.pbtxt").read_text("utf-8"), model_config()())
    assert config.name == "best" and config.backend == "onnxruntime" and config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    assert json.loads(config.parameters["classes"].string_value) == facts.classes
    assert json.loads(config.parameters["windows"].string_value)["stride"] == [20, 20]

    session = onnxruntime.InferenceSession(tmp_path / "models" / "best" / "1" / config.default_model_filename)
    kinds = {"tensor(uint8)": 2, "tensor(float)": 11}
    for written, known in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        shapes = [[size if isinstance(size, int) else -1 for size in value.shape[1:]] for value in known]
        assert [(item.name, item.data_type, list(item.dims)) for item in written] == [
            (value.name, kinds[value.type], shape) for value, shape in zip(known, shapes, strict=True)
        ]
