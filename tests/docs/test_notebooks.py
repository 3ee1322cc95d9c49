"""The notebooks run from beginning to end, and the pictures that they are saved with are there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import notebook_pages
import pytest

from support.paths import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_saved_with_its_outputs(path):
    text = notebook_pages.page(path)
    assert text.startswith("# ")
    assert "data:image/png;base64," in text
    assert "Traceback" not in text
    assert "error:" not in text
    assert str(Path.home()) not in text
    assert "/tmp/" not in text
    assert "/terrazzo/" not in text, "an output names the folder of this installation"
    assert path.stat().st_size < 1_000_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    numbers = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1)), "run all cells in order, with `make notebooks`"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    pytest.importorskip("nbclient", reason='notebooks need pip install "terrazzo[docs]"')
    if path.stem == "export" and "TERRAZZO_ORT_WEB" not in os.environ:
        pytest.skip("TERRAZZO_ORT_WEB names no package onnxruntime-web")
    cells = notebook_pages.execute(path, tmp_path).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output.text for output in outputs if "text" in output and "error:" in output.text]
