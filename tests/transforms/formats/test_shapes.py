"""Labels made of objects: names of images, objects without an area, and what lies outside of the image."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest

from support.tiny import save_image
from terrazzo.data.build import build_dataset
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.errors import UserError
from terrazzo.transforms.formats.raster import ellipse, run_lengths, start_lengths
from terrazzo.transforms.formats.shapes import ListedImages

SQUARE = [[2, 2], [6, 2], [6, 6], [2, 6]]
OUTLINE = [number for point in SQUARE for number in point]
AREA = {"label": "car", "points": SQUARE}
PLAIN = {"pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]}


def labelme(root: Path, *shapes: dict[str, Any], **options: Any) -> np.ndarray:
    """The label of an image of 12x10 pixels with these shapes."""
    save_image(root / "a.png", np.zeros((10, 12, 3), np.uint8))
    (root / "a.json").write_text(json.dumps({"shapes": shapes}))
    dataset = opened(root, {"type": "labelme", **options}, "")
    return dataset[0].label


def opened(root: Path, label_format: Any, labels: str, **options: Any) -> SegmentationDataset:
    section = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": "", "seg_map_path": labels},
        "metainfo": {"classes": ["background", "car"]},
        "label_format": label_format,
        **options,
        **PLAIN,
    }
    return build_dataset(section)


def coco(root: Path, *names: str, **content: Any) -> None:
    """A COCO file with the square in each of these images."""
    annotations = [{"id": i, "image_id": i, "category_id": 3, "segmentation": [OUTLINE]} for i in range(len(names))]
    images = [{"id": i, "file_name": name, "height": 10, "width": 12} for i, name in enumerate(names)]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]} | content
    (root / "all.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("listed", "image"),
    [
        ("a.png", "a.png"),
        ("images\\a.png", "images/a.png"),
        ("..\\..\\upload\\1\\0a1b2c3d-a.png", "0a1b2c3d-a.png"),
        ("/data/upload/1/0a1b2c3d-a.png", "a.png"),
        ("/data/local-files/?d=some%20where/a.png", "a.png"),
        ("https://example.org/x/a.png?token=5", "x/a.png"),
        ("C:\\Users\\me\\A.PNG", "a.png"),
        ("a.bmp", "a.png"),
        ("a", "a.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
    ],
)
def test_an_image_is_found_by_what_programs_call_it(listed, image):
    assert ListedImages([listed, "b.png"]).name_of(PurePosixPath(image)) is not None


def test_of_equal_names_the_one_in_the_same_folder_counts():
    listed = ListedImages(["x/one/a.png", "x/two/a.png"])
    assert listed.name_of(PurePosixPath("one/a.png")) == "x/one/a.png"
    assert listed.name_of(PurePosixPath("three/a.png")) is None, "either could be meant"
    assert ListedImages(["0a1b2c3d-a.png"]).name_of(PurePosixPath("ffffffff-a.png")) is None


@pytest.mark.parametrize(
    "shape",
    [
        {"label": "car", "points": [[1, 8], [9, 8]], "shape_type": "line"},
        {"label": "car", "points": [[1, 8], [9, 8], [9, 9]], "shape_type": "linestrip"},
        {"label": "car", "points": [[8, 8]], "shape_type": "point"},
        {"label": "car", "points": [[8, 8], [9, 9], [7, 8]], "shape_type": "points"},
        {"label": "car", "points": [[8, 8], [9, 9]], "shape_type": "polygon"},
        {"label": "car", "points": [], "shape_type": "polygon"},
        {"label": "car", "points": [[8, 8]], "shape_type": "rectangle"},
    ],
)
def test_shapes_without_an_area_are_left_out(tmp_path, shape):
    expected = np.zeros((10, 12), np.uint8)
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(labelme(tmp_path, AREA, shape), expected)


def test_lines_are_drawn_with_a_width(tmp_path):
    line = {"label": "car", "points": [[1, 8], [9, 8]], "shape_type": "line"}
    label = labelme(tmp_path, line, line_width=1)
    assert label[8, 1:10].all() and label.sum() == 9
    with pytest.raises(UserError, match="line_width"):
        labelme(tmp_path, line, line_width=-1)


def test_what_lies_outside_of_the_image_is_named(tmp_path):
    away = {"label": "car", "points": [[x + 50, y] for x, y in SQUARE]}
    with pytest.warns(UserWarning, match=r"a\.json: outside of the image.* shape 2 \('car'\)"):
        assert labelme(tmp_path, AREA, away).sum() == 16


@pytest.mark.parametrize(("corner", "covered"), [((-2, -3), 2 * 3), ((10, 8), 2 * 2), ((3, 3), 4 * 6)])
def test_masks_are_cut_to_the_image(tmp_path, corner, covered):
    picture = base64.b64encode(cv2.imencode(".png", np.full((6, 4), 255, np.uint8))[1].tobytes()).decode()
    shape = {"label": "car", "points": [corner, corner], "shape_type": "mask", "mask": picture}
    assert labelme(tmp_path, shape).sum() == covered


def test_a_stated_size_is_judged_before_memory_is_taken(tmp_path):
    save_image(tmp_path / "a.png", np.zeros((10, 12, 3), np.uint8))
    content = {"shapes": [AREA], "imageHeight": 10**6, "imageWidth": 10**6}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "1000000x1000000" in opened(tmp_path, "labelme", "")[0].message


def test_a_mask_inside_a_label_is_judged_too(tmp_path):
    data = bytearray(cv2.imencode(".png", np.full((6, 4), 255, np.uint8))[1].tobytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    shape = {"label": "car", "points": [[0, 0]], "shape_type": "mask", "mask": base64.b64encode(data).decode()}
    save_image(tmp_path / "a.png", np.zeros((10, 12, 3), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape]}))
    assert "its mask has 60000x60000 pixels" in opened(tmp_path, "labelme", "")[0].message


def test_run_lengths_without_an_end(tmp_path):
    with pytest.raises(UserError, match="without an end"):
        run_lengths("o" * 10**6, 10, 12)


def test_categories_of_one_name_are_one_class_and_boxes_cover_nothing(tmp_path):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name, np.zeros((10, 12, 3), np.uint8))
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 3, "segmentation": [OUTLINE]},
        {"id": 2, "image_id": 1, "category_id": 4, "segmentation": [OUTLINE]},
        {"id": 3, "image_id": 1, "category_id": 4, "segmentation": [], "bbox": [7, 7, 2, 2]},
        {"id": 4, "image_id": 1, "category_id": 4, "bbox": [7, 7, 2, 2]},
    ]
    categories = [{"id": 3, "name": "car"}, {"id": 4, "name": "car"}]
    coco(tmp_path, "a.png", "b.png", annotations=annotations, categories=categories)
    dataset = opened(tmp_path, "coco", "all.json", metainfo={})
    assert dataset.classes == ("background", "car")
    assert [dataset[index].label.sum() for index in (0, 1)] == [16, 16]


@pytest.mark.parametrize(("unlabelled", "images"), [("skip", ["a.png"]), ("background", ["a.png", "b.png"])])
@pytest.mark.parametrize("label_format", ["coco", "labelme"])
def test_images_without_a_label(tmp_path, label_format, unlabelled, images):
    save_image(tmp_path / "b.png", np.zeros((10, 12, 3), np.uint8))
    save_image(tmp_path / "a.png", np.zeros((10, 12, 3), np.uint8))
    if label_format == "coco":
        coco(tmp_path, "a.png")
    else:
        (tmp_path / "a.json").write_text(json.dumps({"shapes": [AREA]}))
    labels = "all.json" if label_format == "coco" else ""
    with pytest.raises(UserError, match=r"1 of 2 images .*b\.png"):
        opened(tmp_path, label_format, labels)
    dataset = opened(tmp_path, label_format, labels, unlabelled=unlabelled)
    assert [image.name for image, _ in dataset.pairs] == images
    assert [dataset[index].label.sum() for index in range(len(images))] == [16, 0][: len(images)]


def test_an_ellipse_is_turned_clockwise():
    flat, turned = ellipse((10, 10), (8, 2), 0, (20, 20)), ellipse((10, 10), (8, 2), 90, (20, 20))
    whole = np.zeros((2, 20, 20), bool)
    for index, (top, left, mask) in enumerate((flat, turned)):
        whole[index, top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    np.testing.assert_array_equal(whole[0], whole[1].T)
    assert whole[0].sum() == pytest.approx(np.pi * 16, rel=0.1)


@pytest.mark.parametrize("text", ["1", "0 4", "5 -1", "100 30", "1 99999999999", "nan 4"])
def test_run_lengths_that_do_not_fit(text):
    with pytest.raises(ValueError):
        start_lengths(text, (10, 12), by_rows=False)
