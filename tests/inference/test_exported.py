"""Exported files as models: loading, prediction, evaluation, ensembles, and files that are none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import yaml

import terrazzo as tz
from support.exports import need, picture, random_segmenter
from support.tiny import environment, save_image, street, terrazzo
from terrazzo.cli.main import main
from terrazzo.errors import UserError

LEAN = """
import re, sys
from pathlib import Path
import terrazzo as tz

tz.load({model!r})({image!r}).save({out!r})
assert "torch" not in sys.modules
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_onnx_file_runs_without_torch(exported, tmp_path):
    image = save_image(tmp_path / "p.png", street(100)[0])
    code = LEAN.format(model=str(exported.onnx), image=str(image), out=str(tmp_path / "l.png"))
    result = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 250, "MB at the peak"
    assert (tmp_path / "l.png").stat().st_size > 0


def test_predict_and_test_take_it(exported, tmp_path):
    image = save_image(tmp_path / "p.png", street(100)[0])
    result = terrazzo("predict", image, "--model", exported.onnx, "--out", tmp_path / "out", "--confidence")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "p.png").exists()
    before = tz.evaluate(str(exported.config), str(exported.best), device="cpu")
    after = tz.evaluate(str(exported.config), str(exported.onnx), device="cpu")
    assert after["mIoU"] == pytest.approx(before["mIoU"], abs=0.01) and before["mIoU"] > 50
    assert main(["test", str(exported.config), str(exported.onnx)]) == 0


def test_ensembles_of_files_and_checkpoints(exported):
    alone = tz.evaluate(str(exported.config), str(exported.best), device="cpu")
    both = tz.evaluate(str(exported.config), [str(exported.best), str(exported.onnx)], device="cpu")
    assert both["mIoU"] == pytest.approx(alone["mIoU"], abs=0.01)
    views = [[{"type": "Resize", "scale_factor": factor} for factor in (1.0, 1.5)], [{"type": "PackSegInputs"}]]
    config = yaml.safe_load(exported.config.read_text())
    config["tta_pipeline"] = [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": views}]
    with pytest.raises(UserError, match="an exported model runs one view"):
        tz.evaluate(config, str(exported.onnx), device="cpu", tta=True)


def test_damaged_and_foreign_files_are_named(exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    content = exported.onnx.read_bytes()
    (tmp_path / "short.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    foreign = onnx.load(exported.onnx)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    unknown = onnx.load(exported.onnx)
    next(node for node in unknown.graph.node if node.op_type == "Conv").op_type = "Convolve"
    onnx.save(unknown, tmp_path / "operator.onnx")
    unlabelled = onnx.load(exported.onnx)
    del unlabelled.graph.output[0]
    onnx.save(unlabelled, tmp_path / "unlabelled.onnx")
    for entry, text in (("classes", '["road"'), ("palette", "[[1, 2]]")):
        damaged = onnx.load(exported.onnx)
        next(item for item in damaged.metadata_props if item.key == entry).value = text
        onnx.save(damaged, tmp_path / f"{entry}.onnx")
    for name, message in (
        ("short", "short.onnx cannot be run: "),
        ("text", "text.onnx cannot be run: "),
        ("absent", "cannot read .*absent.onnx: No such file"),
        ("foreign", "was not exported by terrazzo: its metadata has no `classes` and `palette`"),
        ("operator", "operator.onnx cannot be run: .*Convolve"),
        ("unlabelled", r"unlabelled.onnx takes image tensor\(uint8\).* and gives confidence: it must .* give `labels`"),
        ("classes", "its metadata is damaged"),
        ("palette", "its metadata is damaged"),
    ):
        with pytest.raises(UserError, match=message):
            tz.load(tmp_path / f"{name}.onnx")


def test_an_image_that_the_model_does_not_take(exported):
    segmenter = tz.load(exported.onnx)
    with pytest.raises(UserError):
        segmenter(picture(16, 16, 5))
    with pytest.raises(UserError, match="runs on the CPU, not on 'cuda'"):
        tz.load(exported.onnx, device="cuda")


def test_weights_beside_an_openvino_file(tmp_path):
    need("openvino")
    tz.export(random_segmenter(), tmp_path / "m.xml")
    (tmp_path / "m.bin").unlink()
    with pytest.raises(UserError, match=r"m.bin is missing: the weights of .*m.xml"):
        tz.load(tmp_path / "m.xml")
    (tmp_path / "m.bin").touch()
    (tmp_path / "m.xml").write_text("<net>")
    with pytest.raises(UserError, match=r"m.xml cannot be read"):
        tz.load(tmp_path / "m.xml")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".onnx", "onnxruntime", "export"), (".xml", "openvino", "openvino")]
)
def test_a_missing_extra_is_answered_with_its_pip_line(suffix, module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    (tmp_path / f"m{suffix}").write_bytes(b"x")
    with pytest.raises(UserError, match=rf'need {module} .*pip install "terrazzo\[{extra}\]"'):
        tz.load(tmp_path / f"m{suffix}")


def test_scores_are_probabilities(exported):
    prediction = tz.load(exported.onnx)(street(100)[0])
    assert prediction.probs.shape == (3, 32, 40)
    assert np.allclose(prediction.probs.sum(0), 1, atol=1e-6)
    assert np.array_equal(prediction.probs.argmax(0), prediction.labels)
