"""The protocol of Label Studio's ML backends, without Label Studio; its own library reads the results, if installed.

The library is looked for in the Python that TERRAZZO_LABEL_STUDIO_PYTHON names.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess

import cv2
import numpy as np
import pytest
from matplotlib.path import Path

import terrazzo as tz
from support.served import PICTURE, STREET
from terrazzo.serving.gate import Refused
from terrazzo.serving.label_studio import Images, Interface
from terrazzo.transforms.formats.label_studio import packed, unpacked
from terrazzo.transforms.formats.outlines import outlines

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
CONFIG = """<View><Image name="photo" value="$picture"/>
<{0} name="kind" toName="photo"><Label value="Street" alias="road"/><Label value="Car"/><Label value="cat"/></{0}>
</View>"""
INSIDE = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
MASKS = [
    np.zeros((2, 3), bool),
    np.ones((3, 5), bool),
    np.ones((200, 300), bool),
    *(cv2.blur(np.random.default_rng(seed).random((40, 70)), (seed + 1, seed + 1)) < 0.5 for seed in range(6)),
]


@pytest.mark.parametrize("mask", MASKS)
def test_a_brush_is_exact_both_ways(mask):
    assert np.array_equal(unpacked(packed(mask), mask.shape), mask)


def inside(ring, shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return Path([*ring, ring[0]]).contains_points(np.stack([columns.ravel(), rows.ravel()], 1)).reshape(shape)


@pytest.mark.parametrize("mask", MASKS)
def test_outlines_are_within_a_pixel(mask):
    filled = np.zeros(mask.shape, bool)
    for ring in outlines(mask):
        filled |= inside(ring, mask.shape)
    wrong = filled != mask
    edges = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) != cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))
    counts, numbers, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    small = np.isin(numbers, [index for index in range(1, counts) if facts[index, cv2.CC_STAT_AREA] < 32])
    assert not (wrong & ~edges & ~small).any()


def ask(server, kind, *pictures):
    tasks = [{"id": number, "data": {"picture": place}} for number, place in enumerate(pictures)]
    body = json.dumps({"tasks": tasks, "label_config": CONFIG.format(kind), "project": "1.2", "params": {}})
    return server.post("/predict", body.encode(), Content_Type="application/json")


def test_brushes(server, model):
    schema = json.dumps({"project": "1.2", "schema": CONFIG.format("BrushLabels")}).encode()
    assert server.post("/setup", schema, Content_Type="application/json").json == {"model_version": "street"}
    first, second = ask(server, "BrushLabels", INSIDE, "/data/upload/1/a.png").json["results"]
    assert first["model_version"] == "street" and 0 < first["score"] <= 1
    prediction = tz.load(model)(STREET)
    for found in (first, second):
        assert [region["value"]["brushlabels"] for region in found["result"]] == [["Street"], ["Car"]]
        for region, label in zip(found["result"], (1, 2), strict=True):
            assert (region["from_name"], region["to_name"], region["type"]) == ("kind", "photo", "brushlabels")
            assert (region["original_width"], region["original_height"]) == (64, 48)
            assert np.array_equal(unpacked(region["value"]["rle"], (48, 64)), prediction.labels == label)


def test_polygons(server):
    (found,) = ask(server, "PolygonLabels", INSIDE).json["results"]
    points = np.array(found["result"][0]["value"]["points"])
    assert found["result"][0]["value"]["closed"] and points.min() >= 0 and points.max() <= 100


def test_a_task_that_fails_does_not_lose_the_others(server):
    good, bad = ask(server, "BrushLabels", INSIDE, "/data/upload/none.png").json["results"]
    assert good["result"] and not bad["result"]


@pytest.mark.parametrize(
    ("kind", "place", "sentence"),
    [
        ("BrushLabels", "http://169.254.169.254/latest", "it is not an address of"),
        ("BrushLabels", "file:///etc/passwd", "it is not an address of"),
        ("BrushLabels", "/data/upload/none.png", "cannot be fetched"),
        ("BrushLabels", "data:image/png;base64,%", "not base64"),
        ("BrushLabels", None, "no image"),
        ("Choices", INSIDE, "no BrushLabels or PolygonLabels"),
    ],
)
def test_what_is_refused(server, kind, place, sentence):
    found = ask(server, kind, place)
    assert found.status == 422 and sentence in found.json["detail"]


@pytest.mark.parametrize("text", ["<View", "<!DOCTYPE x [<!ENTITY a 'b'>]><View/>", "<View/>", 3, CONFIG.format("x")])
def test_labelling_interfaces_that_cannot_be_filled(text):
    with pytest.raises(Refused):
        Interface.read(text)


def test_keys(studio):
    address, shown = studio
    Images(address, "legacy", 10_000).read("/data/upload/1/a.png")
    Images(address, "a.personal.token", 100_000).read("/data/upload/1/a.png")
    assert shown[-2:] == ["Token legacy", "Bearer short"]
    with pytest.raises(Refused):
        Images(address, None, 100).read("/data/upload/1/a.png")


LIBRARY = """
import json, sys
import numpy as np
from label_studio_sdk.converter import brush
ours, masks = json.load(sys.stdin)
read = [np.reshape(brush.decode_rle(rle), (*np.shape(mask), 4))[..., 3] for rle, mask in zip(ours, masks)]
assert all(np.array_equal(a > 0, np.array(b) > 0) for a, b in zip(read, masks))
theirs = [brush.mask2rle(np.array(mask, np.uint8) * 255) for mask in masks]
print(json.dumps([list(map(int, rle)) for rle in theirs]))
"""


@pytest.mark.slow
def test_the_library_of_label_studio_reads_and_writes_the_same():
    python = os.environ.get("TERRAZZO_LABEL_STUDIO_PYTHON")
    if not python:
        pytest.skip("TERRAZZO_LABEL_STUDIO_PYTHON names no Python with label_studio_sdk")
    content = json.dumps([[packed(mask) for mask in MASKS], [mask.astype(int).tolist() for mask in MASKS]])
    result = subprocess.run([python, "-c", LIBRARY], input=content, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for rle, mask in zip(json.loads(result.stdout), MASKS, strict=True):
        assert np.array_equal(unpacked(rle, mask.shape), mask)
