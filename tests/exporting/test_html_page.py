"""A page that runs a model in the browser: headless Chromium, driven by Playwright, from a file and without a network.

It needs TERRAZZO_ORT_WEB (the npm package onnxruntime-web, `.tgz` or folder), the package `playwright` in a Python that
TERRAZZO_PLAYWRIGHT_PYTHON names (default: this one), and Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.exports import picture
from support.tiny import save_image

PYTHON = os.environ.get("TERRAZZO_PLAYWRIGHT_PYTHON", sys.executable)
DRIVER = Path(__file__).parent.parent / "support" / "browser.py"


@pytest.fixture(scope="module")
def runtime() -> str:
    """The npm package onnxruntime-web."""
    source = os.environ.get("TERRAZZO_ORT_WEB")
    if not source:
        pytest.skip("TERRAZZO_ORT_WEB names no package onnxruntime-web")
    return source


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium")
    if subprocess.run([PYTHON, "-c", "import playwright"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no playwright")
    return found


@pytest.mark.slow
def test_the_page_gives_the_labels_of_python(exported, runtime, chromium, tmp_path):
    page = tz.export(exported.best, tmp_path / "street.html", ort_web=runtime).path
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    images = [picture(61, 83, seed=1), picture(40, 56, seed=2)]
    paths = [save_image(tmp_path / f"{index}.png", image) for index, image in enumerate(images)]
    command = [PYTHON, DRIVER, chromium, page, tmp_path, *paths]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)

    # What is computed
    first, second = (tz.load(exported.onnx)(image) for image in images)
    assert seen["problems"] == []
    assert np.array_equal(np.reshape(seen["labels"], (61, 83)), first.labels)
    assert np.allclose(np.reshape(seen["confidence"], (61, 83)), first.confidence, atol=1e-4)
    assert np.array_equal(np.reshape(seen["second"], (40, 56)), second.labels)

    # What is shown and saved
    shares = [float((first.labels == index).mean()) for index in range(3)]
    assert seen["shares"] == pytest.approx(shares, abs=1e-6)
    assert seen["tip"].split()[0] in first.classes and seen["tip"].endswith("%")
    assert "unsure" in seen["unsure tip"]
    assert seen["hidden"] == 0 and seen["shown"] > 0 and seen["one off"] < seen["shown"]
    saved = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(saved, first.labels)
    assert cv2.imread(str(tmp_path / "overlay.png")).shape == (61, 83, 3)
    assert seen["pasted"] and seen["dropped"]
    assert seen["phone width"] <= 390
