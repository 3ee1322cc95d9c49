"""The paired benchmark runs; what it measures is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny import environment

PAIRS = Path(__file__).parents[1] / "benchmarks" / "pairs.py"


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
