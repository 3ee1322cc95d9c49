"""Models timed side by side."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from support.exports import need, random_segmenter
from support.tiny import environment
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.exporting import stopwatch
from terrazzo.exporting.benchmark import benchmark
from terrazzo.exporting.ways import WAYS


def test_a_checkpoint_beside_its_export(exported, tmp_path, capsys):
    command = ["benchmark", str(exported.best), str(exported.onnx), "--ways", "torch", "--size", "64x96"]
    more = ["--check", str(exported.config), "--threads", "1", "--steps", "3", "--out", str(tmp_path)]
    assert main([*command, *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "runtime", "median", "p95", "images/s", "speed", "memory", "file", "mIoU"]
    assert [line.split()[1] for line in lines[1:3]] == ["torch", "onnxruntime"]

    found = json.loads((tmp_path / "benchmark.json").read_text())
    torch, onnxruntime = found["results"]
    assert found["size"] == [64, 96] and found["threads"] == 1
    assert torch["speed"] == 1 and torch["mIoU"] == onnxruntime["mIoU"] > 50
    assert onnxruntime["bytes"] == exported.onnx.stat().st_size
    assert 0 < onnxruntime["memory"] < torch["memory"]
    assert all(0 < row["median"] <= row["p95"] and len(row["seconds"]) == 3 for row in (torch, onnxruntime))
    with Image.open(tmp_path / "benchmark.png") as picture:
        assert picture.size == (1280, 800)


def test_what_fails_says_why(exported, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.onnx.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"broken\.onnx cannot be run"):
        benchmark([broken])
    with pytest.raises(UserError, match=r"there is no way 'openvin'.*openvino"):
        benchmark([exported.onnx], ways=["openvin"])
    with pytest.raises(UserError, match=r"nothing\.yaml"):
        benchmark([exported.onnx], check="nothing.yaml")


def test_bf16_keeps_the_labels():
    plain, prepared = random_segmenter(), random_segmenter()
    stopwatch.PREPARATIONS["bf16"](prepared)
    image = stopwatch.scene(64, 96, 3)
    assert (plain(image).labels == prepared(image).labels).mean() > 0.97
    assert not np.array_equal(plain(image).probs, prepared(image).probs), "it computes as before"


@pytest.mark.slow
def test_all_ways(exported, tmp_path):
    for name in ("onnx", "openvino"):
        need(name)
    results = benchmark([exported.best], (64, 96), exported.config, threads=1, steps=2)["results"]
    assert [row["runtime"] for row in results] == list(WAYS)
    assert not [row for row in results if "failure" in row]


def test_a_stopwatch_ends_with_its_input(exported):
    task = json.dumps({"model": str(exported.onnx), "size": [64, 96]})
    command = [sys.executable, "-m", "terrazzo.exporting.stopwatch", task]
    result = subprocess.run(command, input="step\nend\n", env=environment(), capture_output=True, text=True)
    ready, step, end = map(json.loads, result.stdout.splitlines())
    assert (ready, sum(step["result"]), end["mIoU"]) == ("ready", 64 * 96, None)
