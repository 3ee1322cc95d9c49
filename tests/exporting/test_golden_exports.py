"""The exports of every kind of official model are as the page of them says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import golden_models as golden
from support.exports import need
from support.paths import REPOSITORY
from support.tiny import environment

SCRIPT = REPOSITORY / "benchmarks" / "exports.py"
PAGE = REPOSITORY / "docs" / "export-models.md"
AGREE = ("equal", "equal within rounding")


def verdicts() -> dict[str, str]:
    """What the page's table says of each kind."""
    rows = PAGE.read_text(encoding="utf-8").partition("|---")[2].splitlines()[1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {row[0]: row[-1] for row in cells}


def kinds() -> list[str]:
    """Backbone, neck and head of every golden model."""
    found = {}
    for version in ("v1", "v0"):
        for record in golden.records(version).values():
            spec = record["model"]
            parts = (spec.get("backbone"), spec.get("neck"), spec["decode_head"])
            types = [(part[-1] if isinstance(part, list) else part)["type"] for part in parts if part]
            found["+".join(name.rpartition(".")[2] for name in types)] = None
    return list(found)


def test_the_page_lists_kinds_and_few_exceptions():
    known = verdicts()
    assert {name.partition("(")[0] for name in known} <= set(kinds())
    assert sum(verdict not in AGREE for verdict in known.values()) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_equal_at_four_sizes(kind, tmp_path):
    need("onnx")
    results = tmp_path / "exports.json"
    command = [sys.executable, str(SCRIPT), "--kinds", kind, "--results", str(results)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = dict(line.split(" (", 1) for line in result.stdout.splitlines())
    exceptions = {name for name, verdict in verdicts().items() if verdict not in AGREE}
    assert set(said) == set(json.loads(results.read_text())) != set()
    assert all(line.endswith(AGREE) for name, line in said.items() if name not in exceptions), result.stdout
