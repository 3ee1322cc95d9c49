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


def test_the_page_has_every_kind_and_few_exceptions():
    known = verdicts()
    missing = set()
    for version in ("v0", "v1"):
        for record in golden.records(version).values():
            spec = record["model"]
            parts = (spec.get("backbone"), spec.get("neck"), spec["decode_head"])
            types = [(part[-1] if isinstance(part, list) else part)["type"] for part in parts if part]
            kind = "+".join(name.rpartition(".")[2] for name in types)
            if not any(name.partition("(")[0] == kind for name in known):
                missing.add(kind)
    assert not missing
    assert sum(verdict not in AGREE for verdict in known.values()) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, verdict in verdicts().items() if verdict in AGREE])
def test_equal_at_four_sizes(kind, tmp_path):
    need("onnx")
    results = tmp_path / "exports.json"
    command = [sys.executable, str(SCRIPT), "--kinds", kind, "--results", str(results)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = [line.rpartition("): ")[2] for line in result.stdout.splitlines()]
    assert kind in json.loads(results.read_text())
    assert found and set(found) <= set(AGREE)
