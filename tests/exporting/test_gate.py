"""Exports that are not like their originals are refused."""

from __future__ import annotations

import numpy as np
import pytest

import terrazzo as tz
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.exporting import onnx_file, trial


@pytest.fixture
def damaged(monkeypatch):
    """Exports whose files see every pixel as the first class."""
    onnx = pytest.importorskip("onnx")
    to_onnx = onnx_file.to_onnx

    def damage(*arguments):
        model = to_onnx(*arguments)
        bias = next(item for item in model.graph.initializer if item.name.endswith("conv_seg.bias"))
        values = onnx.numpy_helper.to_array(bias).copy()
        values[0] += 1000
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    monkeypatch.setattr("terrazzo.exporting.formats.to_onnx", damage)


def arguments(exported, out, *more):
    return ["export", str(exported.best), "--out", str(out), *map(str, more)]


def test_an_equal_model_passes(exported, tmp_path, capsys):
    assert main(arguments(exported, tmp_path / "m.onnx", "--check", exported.config)) == 0
    text = capsys.readouterr().out
    assert "mIoU on 3 validation images" in text and "0.00 to 0.00" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.report.html", "m.onnx.report.json"]


def test_another_model_is_refused(exported, damaged, tmp_path, capsys):
    assert main(arguments(exported, tmp_path / "m.onnx")) == 1
    assert "the export gives the original's labels on" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_worse_model_is_refused_with_its_classes(exported, damaged, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trial, "AGREEMENT", 0)
    monkeypatch.setattr(trial, "DISTANCE", np.inf)
    assert main(arguments(exported, tmp_path / "m.onnx", "--check", exported.config)) == 1
    error = capsys.readouterr().err
    assert "worse than the original, so it was not written" in error and "mIoU:" in error and "road:" in error
    assert not list(tmp_path.iterdir())


def test_a_check_on_other_classes_is_refused(exported, tmp_path):
    text = exported.config.read_text().replace("- sky", "- air")
    other = tmp_path / "other.yaml"
    other.write_text(text)
    with pytest.raises(UserError, match=r"the config's classes \(air.* are not the model's \(sky"):
        tz.export(exported.best, tmp_path / "out" / "m.onnx", check=other)
    assert not (tmp_path / "out").exists()
