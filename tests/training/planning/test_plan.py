"""Whole plans, of small data sets on this machine."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml

import terrazzo as tz
from support.tiny import make_streets
from terrazzo.cli.main import main
from terrazzo.training.monitoring.runs import read_run


@pytest.fixture
def streets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    return make_streets(tmp_path / "data")


def test_a_plan_is_a_config_with_reasons(streets, capsys):
    assert main(["plan", "data", "--budget", "20s", "--device", "cpu"]) == 0
    text = (streets.parent / "data.yaml").read_text()
    assert text in capsys.readouterr().out
    found = yaml.safe_load(text)
    assert found["recipe"] == "sem_fpn" and found["pretrained"] == "none"
    tz.build_model(tz.load_config("data.yaml"))
    for key in ("recipe", "model", "crop", "optimizer", "amp", "batch", "iterations", "val_interval", "workers"):
        lines = text.splitlines()
        at = next(index for index, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert "  # " in lines[at] or lines[at - 1].startswith("# "), key

    # it may be planned again, for the same data
    assert main(["plan", "data.yaml", "--budget", "20s", "--device", "cpu", "--out", "again/plan.yaml"]) == 0
    again = yaml.safe_load((streets.parent / "again" / "plan.yaml").read_text())
    assert again["data"] == {**found["data"], "root": "../data"}


def test_a_plan_for_thin_structures_in_two_bands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(6):
        label = np.zeros((64, 64), np.uint8)
        cv2.line(label, (0, int(rng.integers(64))), (63, int(rng.integers(64))), 1, 2)
        image = (1000.0 * label + rng.normal(500, 50, (2, 64, 64))).astype(np.uint16)
        np.save(tmp_path / "data" / "images" / f"{index}.npy", image.transpose(1, 2, 0))
        cv2.imwrite(str(tmp_path / "data" / "labels" / f"{index}.png"), label)
    assert main(["plan", "data", "--budget", "20s", "--device", "cpu"]) == 0
    found = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert found["recipe"] == "unet" and found["data"]["bands"] == [1, 2] and len(found["mean"]) == 2
    tz.build_model(tz.load_config("data.yaml"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plan", "data", "--budget", "0.1s"], 1, "--budget of at least"),
        (["plan", "data", "--budget", "soon"], 2, "'soon' is not a duration"),
        (["plan", "old.py"], 1, "not in the short form"),
        (["plan", "data", "--out", "plan.txt"], 1, ".yaml"),
        (["train", "data", "--gpus", "2"], 2, "--gpus needs a config: write it with `terrazzo plan data"),
    ],
)
def test_what_cannot_be_planned(streets, capsys, arguments, code, message):
    (streets.parent / "old.py").write_text("model = dict(type='EncoderDecoder')\n")
    try:
        assert main([*arguments, "--device", "cpu"]) == code
    except SystemExit as stopped:
        assert stopped.code == code
    assert message in capsys.readouterr().err
    assert not [*streets.parent.glob("*.yaml"), *streets.parent.glob("runs/*/plan.yaml")]


@pytest.mark.slow
def test_a_folder_is_planned_trained_and_scored(streets, capsys):
    assert main(["train", "data", "--budget", "6s", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "95% intervals" in out and "terrazzo export runs/data --out data.onnx" in out
    assert read_run(streets.parent / "runs" / "data", "data").state == "finished"
    assert (streets.parent / "runs" / "data" / "plan.yaml").is_file()


def test_a_fold_has_a_folder_of_its_own(streets, capsys):
    classes = ["sky", "road", "car"]
    data = {"root": "data", "classes": classes, "folds": 3}
    settings = {"iterations": 1, "batch": 2, "crop": "32x32", "workers": 0, "val_pictures": 0}
    (streets.parent / "c.yaml").write_text(yaml.safe_dump({"recipe": "fastscnn", "data": data, **settings}))
    assert main(["train", "c.yaml", "--fold", "2", "--device", "cpu"]) == 0
    used = tz.load_config("runs/c-fold2")["val_dataloader"]["dataset"]["holdout"]
    assert {key: used[key] for key in ("part", "folds", "fold")} == {"part": "val", "folds": 3, "fold": 2}
    for fold, message in (("4", "one of 1 to 3"), ("0", "whole number of at least 1")):
        try:
            assert main(["train", "c.yaml", "--fold", fold, "--device", "cpu"]) == 1
        except SystemExit as stopped:
            assert stopped.code == 2
        assert message in capsys.readouterr().err
