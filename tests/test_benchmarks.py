"""The paired benchmark runs; what it measures is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.paths import REPOSITORY
from support.tiny import environment

PAIRS = REPOSITORY / "benchmarks" / "pairs.py"


def test_steps_without_a_peer(tmp_path):
    out = tmp_path / "times.json"
    command = [sys.executable, str(PAIRS), "--models", "fast-scnn", "--pairs", "2", "--shape", "2x3x64x64"]
    result = subprocess.run([*command, "--out", str(out)], env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("| fast-scnn") == 2
    results = json.loads(out.read_text())
    assert list(results) == ["fast-scnn forward", "fast-scnn train"]
    assert all(len(r["times"]["terrazzo"]["wall"]) == 2 for r in results.values())


def test_a_side_that_ends_tells_why():
    command = [sys.executable, str(PAIRS), "--models", "fast-scnn", "--peer-python", sys.executable, "--pairs", "1"]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 1
    assert "No module named 'mmseg'" in result.stderr


def benchmark(name: str, *arguments: str, timeout: float = 120) -> str:
    command = [sys.executable, str(PAIRS.with_name(name)), *arguments]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_counting_without_a_peer():
    assert benchmark("metric.py", "--pairs", "1").count(" ms") == 2


def test_starting():
    assert "load cpu" in benchmark("startup.py", str(REPOSITORY / "src"), "--times", "1")


@pytest.mark.slow
def test_predicting_without_a_peer():
    assert "on borders" in benchmark("predict.py", "--pairs", "1", "--models", "fast-scnn")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_memory_stays_flat_over_an_evaluation():
    lines = benchmark("memory.py", "evaluation", "--images", "10000", timeout=500).splitlines()
    memory = [float(line.split()[2]) for line in lines]
    assert len(memory) == 10 and lines[-1].startswith("10000 images")
    assert memory[-1] - memory[0] < 8, "MiB"


@pytest.mark.slow
def test_samples_without_a_peer():
    assert benchmark("data.py", "--pairs", "1", "--tasks", "loaded", "ram").count(" ms") == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the memory of a process is read as POSIX tells it")
def test_memory_does_not_grow_with_a_scene():
    pytest.importorskip("rasterio")
    sides = ("--sides", "2000", "4000", "--model", "fast", "--overlap", "0.125", "--memory", "400M")
    first, second = benchmark("scenes.py", *sides, timeout=500).splitlines()[2:]
    small, large = (float(line.split("|")[2].split()[0].replace(",", "")) for line in (first, second))
    assert large < small + 100, "a scene of four times the pixels takes as much memory"
