"""The roles that transforms declare, and everything that asks a pipeline for them with a reader that a user wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import make_streets, street, tiny_config, write_config
from terrazzo.cli.main import main
from terrazzo.registry import TRANSFORMS
from terrazzo.transforms import Compose, read_label
from terrazzo.transforms.base import role_of
from terrazzo.transforms.compose import reading_types

LOAD, LABELS, PACK = {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}
RESIZE, CROP, FLIP = (
    {"type": "Resize", "scale": [40, 32]},
    {"type": "RandomCrop", "crop_size": 16},
    {"type": "RandomFlip"},
)


def names(pipeline: Compose) -> list[str]:
    return [type(step).__name__ for step in pipeline.transforms]


# What a pipeline answers


def test_every_transform_declares_its_role():
    assert {name for name in TRANSFORMS if not hasattr(TRANSFORMS.get(name), "reads")} == set()
    assert reading_types("label") == ["LoadAnnotations", "LoadBiomedicalAnnotation"]


def test_a_pipeline_knows_its_steps_roles():
    pipeline = Compose([LOAD, RESIZE, LABELS, {"type": "Rerange"}, {"type": "GenerateEdge"}, FLIP, PACK])
    assert type(pipeline.reader("image")).__name__ == "LoadImageFromFile"
    assert type(pipeline.reader("label")).__name__ == "LoadAnnotations"
    assert pipeline.reader("depth") is None
    assert names(pipeline.after_reading()) == ["Resize", "Rerange", "RandomFlip"]
    assert names(pipeline.image_values()) == ["LoadImageFromFile", "Rerange"]


def test_randomness_follows_from_what_is_inside():
    quiet, drawn = [{"type": "CLAHE"}], [FLIP]
    assert not Compose(quiet).random and Compose([*quiet, *drawn]).random
    views = [{"type": "TestTimeAug", "transforms": [[step] for step in steps]} for steps in (quiet, drawn)]
    assert [Compose([view]).random for view in views] == [False, True]
    assert Compose([{"type": "RandomApply", "transforms": quiet}]).random
    assert not Compose([{"type": "RandomApply", "transforms": quiet}]).moves_pixels


def test_labels_are_found_inside_other_steps():
    views = {"type": "TestTimeAug", "transforms": [[RESIZE], [LABELS], [PACK]]}
    assert type(Compose([LOAD, views]).reader("label")).__name__ == "LoadAnnotations"


def test_what_is_printed_is_what_runs():
    assert "ResizeCrop(resize=Resize(" in repr(Compose([LOAD, RESIZE, CROP]))
    assert "RandomApply([Compose([CLAHE(" in repr(Compose([{"type": "RandomApply", "transforms": {"type": "CLAHE"}}]))


def test_a_step_without_declarations_is_taken_with_caution():
    def unknown(sample, rng):
        return sample

    role = role_of(unknown)
    assert role.random and role.moves_pixels and not (role.is_declared or role.reads)
    assert Compose([unknown, LABELS]).reader("image") is unknown
    assert Compose([LABELS, unknown]).reader("image") is None
    assert names(Compose([LOAD, unknown]).image_values()) == ["LoadImageFromFile"]


# A reader that a user wrote

MODULE = """
import numpy as np
from terrazzo.cli.main import main
from terrazzo.registry import TRANSFORMS


@TRANSFORMS.register
class ReadRaw:
    {role}

    def __call__(self, sample, rng):
        sample.image = np.frombuffer(sample.image_path.read_bytes(), np.uint8).reshape(32, 40, 3)
        sample.original_size = (32, 40)
        return sample
"""


@pytest.fixture(params=["declared", "undeclared"])
def project(request, tmp_path, monkeypatch) -> Iterator[Path]:
    """A config of `.raw` images, and the module beside it that reads them."""
    for path in make_streets(tmp_path / "data", train=4, val=2).glob("images/*/*.png"):
        image, _ = street(int(path.stem) + (100 if path.parent.name == "val" else 0))
        path.with_suffix(".raw").write_bytes(image.tobytes())
        path.unlink()
    module, role = f"reader_{request.param}", 'reads = "image"' if request.param == "declared" else ""
    (tmp_path / f"{module}.py").write_text(MODULE.format(role=role))
    config = tiny_config(tmp_path / "data", steps=2, batch=2)
    for split in ("train", "val", "test"):
        dataset = config[f"{split}_dataloader"]["dataset"]
        dataset["img_suffix"] = ".raw"
        dataset["pipeline"][0] = {"type": "ReadRaw"}
    write_config(tmp_path / "raw.yaml", config | {"custom_imports": {"imports": [module]}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop(module, None)
    TRANSFORMS.types.pop("ReadRaw", None)


def test_everything_reads_files_by_the_step_that_a_user_wrote(project, capsys):
    def succeeds(*arguments: object) -> str:
        assert main([*map(str, arguments), "--trust-config"]) == 0
        return capsys.readouterr().out

    assert "nothing found" in succeeds("data", "check", "raw.yaml")
    stats = json.loads(succeeds("data", "stats", "raw.yaml", "--json"))["splits"]["train"]
    assert stats["sizes"] == {"40x32": 4} and 60 < stats["mean"][0] < 200
    succeeds("data", "browse", "raw.yaml", "--out", "page.html")
    succeeds("train", "raw.yaml", "--work-dir", "run", "--device", "cpu")
    assert list((project / "run").rglob("*.png")), "validation pictures"
    outputs = ("--out", "out", "--gallery", "worst", "--show-dir", "shown")
    succeeds("test", "raw.yaml", "run/last.safetensors", "--device", "cpu", *outputs)
    assert len(list((project / "worst").rglob("*_image.jpg"))) == len(list((project / "shown").glob("*.png"))) == 2

    path = project / "data/images/val/00.raw"
    succeeds("predict", path, "--model", "run/last.safetensors", "--device", "cpu")
    image = np.frombuffer(path.read_bytes(), np.uint8).reshape(32, 40, 3)
    segmenter = tz.load(project / "run/last.safetensors", device="cpu", trust=True)
    prediction = segmenter(path)
    assert np.array_equal(prediction.image, image)
    assert np.array_equal(prediction.labels, segmenter(image).labels)
    assert np.array_equal(read_label(project / "predictions/00.png"), prediction.labels)
    assert [found.path.name for found in segmenter(path.parent)] == ["00.raw", "01.raw"]
    assert "2 of 2 segmented" in succeeds(
        "predict", path.parent, "--model", "run/last.safetensors", "--device", "cpu", "--out", "folder"
    )
