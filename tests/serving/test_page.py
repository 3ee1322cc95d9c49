"""The page of a server, in headless Chromium, and what it keeps."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import terrazzo as tz
from support.exports import picture
from support.paths import REPOSITORY
from support.tiny import save_image
from terrazzo.cli.main import main
from terrazzo.serving.gate import Refused
from terrazzo.serving.page import MODULES, Kept, check_keeping, module, page

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
PYTHON = os.environ.get("TERRAZZO_PLAYWRIGHT_PYTHON", sys.executable)
DRIVER = REPOSITORY / "tests" / "support" / "server_browser.py"
IMAGES = [cv2.GaussianBlur(picture(120, 160, seed=seed), (0, 0), 4) for seed in (1, 2)]
CLASSES = ["sky", "road", "car"]


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def test_the_page_loads_only_what_is_there():
    for name in MODULES:
        for line in module(name).splitlines():
            if line.startswith("import "):
                assert line.split('"./')[1].rstrip('";') in MODULES
    assert "page/server.js" in page() and "http" not in page().replace("http-equiv", "")
    for name in ("boot.js", "../app.js", "/etc/passwd"):
        with pytest.raises(Refused):
            module(name)


def test_what_is_kept_is_a_data_set(tmp_path):
    kept = Kept(tmp_path / "kept")
    for index in range(5):
        labels = np.full((40, 50), index % 3, np.uint8)
        labels[:5] = 255
        place = kept.keep(png(picture(40, 50, seed=index)), f"a b{index}.png", (40, 50), png(labels), CLASSES)
        assert place == f"images/a_b{index}.png"
    again = kept.keep(png(picture(40, 50, seed=0)), "a b0.png", (40, 50), png(labels * 0), CLASSES)
    other = kept.keep(png(picture(40, 50, seed=9)), "../../a b0.jpg", (40, 50), png(labels * 0), CLASSES)
    assert (again, other) == ("images/a_b0.png", "images/a_b0-2.png")
    assert not cv2.imread(str(tmp_path / "kept" / "labels" / "a_b0.png"), cv2.IMREAD_UNCHANGED).any()
    assert main(["data", "init", str(tmp_path / "kept"), "--out", str(tmp_path / "kept.yaml")]) == 0
    assert yaml.safe_load((tmp_path / "kept.yaml").read_text())["data"]["classes"] == CLASSES


@pytest.mark.parametrize(
    ("labels", "classes", "sentence"),
    [
        (png(np.zeros((40, 51), np.uint8)), CLASSES, "the labels are 40x51, the image 40x50"),
        (png(np.full((40, 50), 3, np.uint8)), CLASSES, "contain 3, and the model has 3 classes"),
        (b"no picture", CLASSES, "cannot decode the labels"),
        (png(np.zeros((40, 50), np.uint8)), ["other"], "keeps images of other classes"),
    ],
)
def test_what_is_not_kept(tmp_path, labels, classes, sentence):
    kept = Kept(tmp_path)
    kept.note_classes(CLASSES)
    with pytest.raises(Refused) as problem:
        kept.keep(png(picture(40, 50)), "a.png", (40, 50), labels, classes)
    assert sentence in problem.value.message and not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("host", "mark", "has_token", "is_fine"),
    [
        ("127.0.0.1:8000", "keep", False, True),
        ("[::1]:8000", "keep", False, True),
        ("localhost", "keep", False, True),
        ("127.0.0.1:8000", "", False, False),
        ("evil.example:8000", "keep", False, False),
        ("models.example", "keep", True, True),
    ],
)
def test_other_pages_make_no_browser_keep(host, mark, has_token, is_fine):
    request = SimpleNamespace(headers={"host": host, "x-terrazzo": mark})
    if is_fine:
        check_keeping(request, has_token)
    else:
        with pytest.raises(Refused):
            check_keeping(request, has_token)


@pytest.mark.slow
def test_the_page_in_a_browser(model, started, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or subprocess.run([PYTHON, "-c", "import playwright"], capture_output=True).returncode:
        pytest.skip(f"there is no Chromium, or {PYTHON} has no playwright")
    server = started(model, "--keep", tmp_path / "kept", "--token", "secret")
    paths = [save_image(tmp_path / f"{index}.png", image) for index, image in enumerate(IMAGES)]
    command = [PYTHON, DRIVER, chromium, server.address, tmp_path, *paths]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert all("401" in problem for problem in seen["problems"]), seen["problems"]  # before the token was given
    first, second = (tz.load(model)(image) for image in IMAGES)

    # What is computed is what the API answers
    shape = first.labels.shape
    assert np.array_equal(np.reshape(seen["labels"], shape), first.labels)
    assert np.array_equal(np.reshape(seen["second"], shape), second.labels)
    assert np.abs(np.reshape(seen["confidence"], shape) - first.confidence).max() < 0.003
    answer = server.post("/predict", png(IMAGES[0][..., ::-1]), Accept="image/png", Authorization="Bearer secret")
    api = np.array(Image.open(io.BytesIO(answer.body)))
    saved = cv2.imread(str(tmp_path / "served.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(saved, api) and seen["count"].startswith("2 / 2")
    assert seen["tip"].split()[0] in first.classes

    # What is shown
    assert seen["zoomed"][0] > 1 and seen["wheel"][0] > seen["zoomed"][0] and seen["fitted"] == [1, 0, 0]
    assert seen["split"] == ["inset(0px 0px 0px 50%)", True] and seen["dragged"] == "25"
    assert (seen["hidden"], seen["shown"]) == ("0", "60")
    assert seen["chinese"] == ["保存标签", "zh"] and seen["nameless"] == [] and seen["phone width"] <= 390

    # What is corrected and kept
    stroke, filled = (np.reshape(seen[name], shape) for name in ("stroke", "filled"))
    assert seen["undone"] == seen["labels"]
    assert (stroke != first.labels).sum() > 20 and set(stroke[stroke != first.labels]) == {2}
    _, regions = cv2.connectedComponents((first.labels == first.labels[0, 0]).astype(np.uint8), connectivity=4)
    assert np.array_equal(filled, np.where(regions == regions[0, 0], 2, first.labels))
    assert "images/0.png" in seen["kept"]
    assert np.array_equal(cv2.imread(str(tmp_path / "kept/labels/0.png"), cv2.IMREAD_UNCHANGED), filled)
    assert (tmp_path / "kept/images/0.png").read_bytes() == paths[0].read_bytes()
