"""Colours that class names suggest, and those that a user writes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrazzo.errors import UserError
from terrazzo.system.palette import default_palette, suggested_palette, written_palette

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("Sky", (135, 206, 235)),
        ("trees", (46, 139, 60)),
        ("low_vegetation", (46, 139, 60)),
        ("DirtRoad", (115, 115, 125)),
        ("天空", (135, 206, 235)),
        ("7", (31, 119, 180)),
    ],
)
def test_a_common_name_has_the_colour_one_expects(name, colour):
    assert suggested_palette([name]) == [list(colour)]


def test_classes_without_common_names_keep_the_default_colours():
    assert suggested_palette(["a", "b", "c"]) == [list(colour) for colour in default_palette(3)]


@pytest.mark.parametrize(
    "classes", [CAMVID, ["tree", "forest", "bush", "vegetation", "shrub"], [*CAMVID, *"abcdefghijklmnop"]]
)
def test_suggested_colours_are_distinct_and_not_black(classes):
    palette = suggested_palette(classes)
    lab = cv2.cvtColor(np.array([palette], np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(classes))
    assert distance.min() > 12 and lab[:, 0].min() > 20
    assert palette == suggested_palette(classes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", '{"road": [1, 2, 3], "sky": "#040506"}'),
        ("p.json", '[[4, 5, 6], "#010203"]'),
        ("p.txt", "4 5 6\n1,2,3\n"),
        ("p.csv", "\ufeffroad;#010203\nsky;4;5;6\n"),
        ("p.txt", "sky: #040506\n\nroad: 1 2 3"),
    ],
)
def test_a_palette_from_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert written_palette(str(tmp_path / name), ["sky", "road"], [(0, 0, 0)] * 2) == [[4, 5, 6], [1, 2, 3]]


def test_a_palette_on_the_command_line():
    palette = [(9, 9, 9)] * 3
    assert written_palette("road=#010203,sky=skyblue", ["sky", "road", "car"], palette) == [
        [135, 206, 235], [1, 2, 3], [9, 9, 9],
    ]  # fmt: skip
    assert written_palette("sky=rgb(1,2,3),road=4 5 6", ["sky", "road"], palette[:2]) == [[1, 2, 3], [4, 5, 6]]
    assert written_palette("names", CAMVID, [(0, 0, 0)] * 11) == suggested_palette(CAMVID)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.txt", "no such file"),
        ("raod=#010203", "'raod' is not a class of the model; did you mean 'road'"),
        ("road=blu", "'blu' is not a colour"),
        ("road=1 2 300", "is not a colour"),
    ],
)
def test_what_is_no_palette(text, message):
    with pytest.raises(UserError, match=message):
        written_palette(text, ["sky", "road"], [(0, 0, 0)] * 2)


@pytest.mark.parametrize(("content", "message"), [("1 2 3", "1 colours, but the model 2"), ("red?", "'red\\?' is nei")])
def test_what_is_no_palette_file(tmp_path, content, message):
    (tmp_path / "p.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        written_palette(str(tmp_path / "p.txt"), ["sky", "road"], [(0, 0, 0)] * 2)
