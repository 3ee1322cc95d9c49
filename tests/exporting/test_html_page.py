"""A page that runs a model in the browser: headless Chromium, driven by Playwright, from a file and without a network.

It needs TERRAZZO_ORT_WEB (the npm package onnxruntime-web, `.tgz` or folder), the package `playwright` in a Python that
TERRAZZO_PLAYWRIGHT_PYTHON names (default: this one), and Chromium.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.exports import picture, random_segmenter, set_windows
from support.tiny import save_image
from terrazzo.exporting.html_page import WebRuntime, html_page
from terrazzo.inference.exported import ModelFacts

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


def test_names_end_no_script():
    names = ["</script><script>alert(1)</script>", "<!--<script>", "car"]
    facts = ModelFacts(names, [[0, 0, 0]] * 3, source="<!--<script>")
    text = html_page(b"model", facts, WebRuntime(b"module", b"wasm"), "<!--<script>")
    assert "<!--<script>" not in text and text.count("</script>") == text.count("<script ")
    (written,) = re.findall('<script type="application/json" id="model-facts">(.*?)</script>', text)
    assert json.loads(written)["classes"] == names


def drive(chromium, page, folder, images):
    """What the driver saw on a page, which it gave two images."""
    paths = [save_image(folder / f"{index}.png", image) for index, image in enumerate(images)]
    command = [PYTHON, DRIVER, chromium, page, folder, *paths]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["problems"] == []
    return seen


IMAGES = [picture(61, 83, seed=1), picture(40, 56, seed=2)]


@pytest.mark.slow
def test_the_page_gives_the_labels_of_python(exported, runtime, chromium, tmp_path):
    page = tz.export(exported.best, tmp_path / "street.html", ort_web=runtime).path
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    seen = drive(chromium, page, tmp_path, IMAGES)
    first, second = (tz.load(exported.onnx)(image) for image in IMAGES)

    # What is computed, whatever the image comes from and whatever computes
    for name in ("labels", "dropped", "pasted", "paste button"):
        assert np.array_equal(np.reshape(seen[name], (61, 83)), first.labels), name
    for name in ("second", "gpu"):
        assert np.array_equal(np.reshape(seen[name], (40, 56)), second.labels), name
    assert np.allclose(np.reshape(seen["confidence"], (61, 83)), first.confidence, atol=1e-4)
    assert "WebGPU" in seen["computes"] and "WebAssembly" in seen["webcam"] and seen["webcam off"] == "false"

    # What is shown
    shares = [float((first.labels == index).mean()) for index in range(3)]
    assert seen["shares"] == pytest.approx([*shares, 0], abs=1e-6)
    assert seen["tip"].split()[0] in first.classes and seen["tip"].endswith("%")
    assert "unsure" in seen["unsure tip"] and seen["unsure share"] == pytest.approx((first.confidence < 0.99).mean())
    assert seen["hidden"] == seen["transparent"] == 0 and 0 <= seen["one off"] < seen["shown"] == 61 * 83
    assert seen["progress"], "the bar is shown while it computes"
    assert seen["error"] == "notes.txt: this is not an image that the browser can read"
    assert seen["nameless"] == [] and {"button", "slider", "checkbox", "combobox", "image"} <= {*seen["roles"]}
    assert seen["phone width"] <= 390

    # What is saved
    saved, sure = (cv2.imread(str(tmp_path / name), cv2.IMREAD_GRAYSCALE) for name in ("labels.png", "sure.png"))
    assert np.array_equal(saved, first.labels)
    assert np.array_equal(sure, np.where(first.confidence < 0.99, 255, first.labels))
    overlay = cv2.imread(str(tmp_path / "overlay.png"))[..., ::-1].astype(int)
    assert np.abs(overlay - first.overlay(0.6)).max() <= 2


@pytest.mark.slow
def test_a_page_runs_windows(runtime, chromium, tmp_path):
    steps = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (96, 48), "keep_ratio": True}]
    segmenter = random_segmenter(steps, change=set_windows("slide_flip"))
    seen = drive(chromium, tz.export(segmenter, tmp_path / "w.html", ort_web=runtime).path, tmp_path, IMAGES)
    assert np.array_equal(np.reshape(seen["labels"], (61, 83)), segmenter(IMAGES[0]).labels)
    assert np.allclose(np.reshape(seen["confidence"], (61, 83)), segmenter(IMAGES[0]).confidence, atol=1e-4)
    assert "100" in seen["progress"]
