"""Labels in every format: one drawn scene, written in all of them, gives the same class map."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import terrazzo as tz
from support.tiny import save_image, save_label
from terrazzo.config.load import load_config
from terrazzo.config.short_form.types import FORMATS
from terrazzo.data.build import build_dataset
from terrazzo.data.dataset import LoadError, SegmentationDataset
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.discovery.label_facts import label_facts
from terrazzo.errors import UserError
from terrazzo.registry import TRANSFORMS
from terrazzo.sample import Sample
from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.colours import voc_colour
from terrazzo.transforms.formats.raster import polygon, rings, run_lengths

CLASSES = ["background", "field", "house", "tree"]
COLOURS = [(0, 0, 0), (20, 160, 40), (200, 30, 30), (10, 60, 10)]
HEIGHT, WIDTH = 40, 60
FIELD = [(5, 5), (50, 5), (50, 35), (5, 35)]
POND = [(10, 12), (22, 12), (22, 20), (10, 20)]  # a hole in the field
HOUSE = [(30, 10), (46, 30), (30, 30)]
TREE = [(32, 22), (38, 22), (38, 28), (32, 28)]


def scene() -> np.ndarray:
    """The class map (H, W), by the middles of the pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[5:35, 5:50] = 1
    label[12:20, 10:22] = 0
    label[(x > 30) & (y < 30) & (y - 10 > 20 / 16 * (x - 30))] = 2
    label[22:28, 32:38] = 3
    return label


LABEL = scene()
KEYHOLE = [*FIELD[:1], *POND[:1], *POND[:0:-1], POND[0], *FIELD[:1], *FIELD[1:]]  # one line around field and hole


def counts_of(mask: np.ndarray) -> list[int]:
    """COCO's run lengths, down the columns, beginning with zeros."""
    flat = mask.T.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *([0] if flat[0] else []), *changes, flat.size]).tolist()


def compressed(counts: list[int]) -> str:
    """Run lengths as COCO's text."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 0x1F, value >> 5
            done = value == (-1 if group & 0x10 else 0)
            text += chr((group if done else group | 0x20) + 48)
            if done:
                break
    return text


def write_text(path: Path, text: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def flat(points: list[tuple[float, float]]) -> list[float]:
    return [number for point in points for number in point]


def write_index(root: Path) -> Any:
    save_label(root / "labels/train/a.png", LABEL)


def write_rgb(root: Path) -> Any:
    save_image(root / "labels/train/a.png", np.array(COLOURS, np.uint8)[LABEL])
    return {"type": "rgb", "colours": dict(zip(CLASSES, map(list, COLOURS), strict=True))}


def write_rgb_with_palette(root: Path) -> Any:
    write_rgb(root)
    return "rgb"


def write_rgb_with_csv(root: Path) -> Any:
    write_rgb(root)
    rows = [f"{name},{red},{green},{blue}" for name, (red, green, blue) in zip(CLASSES, COLOURS, strict=True)]
    write_text(root / "class_dict.csv", "name,r,g,b\n" + "\n".join(reversed(rows)))
    return {"type": "rgb", "colours": "class_dict.csv"}


def write_voc(root: Path) -> Any:
    save_image(root / "labels/train/a.png", np.array([voc_colour(index) for index in range(4)], np.uint8)[LABEL])
    return "voc"


def write_voc_indexed(root: Path) -> Any:
    image = Image.fromarray(LABEL)
    image.putpalette([channel for index in range(256) for channel in voc_colour(index)])
    (root / "labels/train").mkdir(parents=True)
    image.save(root / "labels/train/a.png")
    return "voc"


def write_cvat(root: Path) -> Any:
    write_rgb(root)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(CLASSES, COLOURS, strict=True)]
    write_text(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *reversed(lines)]))
    return "cvat"


def coco(*annotations: tuple[int, Any]) -> dict[str, Any]:
    entries = [
        {"id": number, "image_id": 7, "category_id": category, "segmentation": segmentation, "iscrowd": 0}
        for number, (category, segmentation) in enumerate(annotations, 1)
    ]
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 9, "name": "tree"}, {"id": 3, "name": "field"}, {"id": 5, "name": "house"}],
        "annotations": entries,
    }


def write_coco(root: Path) -> Any:
    things = (9, [flat(TREE)]), (5, [flat(HOUSE)]), (3, [flat(FIELD), flat(POND)])
    write_text(root / "labels/train.json", coco(*things))
    return "coco"


def write_coco_run_lengths(root: Path) -> Any:
    """The hole in a line around both, one thing as numbers, one as text: all forms that COCO knows."""
    house = {"size": [HEIGHT, WIDTH], "counts": counts_of((LABEL == 2) | (LABEL == 3))}
    tree = {"size": [HEIGHT, WIDTH], "counts": compressed(counts_of(LABEL == 3))}
    write_text(root / "labels/instances_train.json", coco((3, [flat(KEYHOLE)]), (5, house), (9, tree)))
    return {"type": "coco", "order": "file"}


def write_labelme(root: Path) -> Any:
    mask = base64.b64encode(cv2.imencode(".png", np.full((6, 6), 255, np.uint8))[1].tobytes()).decode()
    shapes = [
        {"label": "field", "points": [FIELD[0], FIELD[2]], "shape_type": "rectangle"},
        {"label": "_background_", "points": POND, "shape_type": "polygon"},
        {"label": "house", "points": HOUSE, "shape_type": "polygon"},
        {"label": "tree", "points": [TREE[0], [37, 27]], "shape_type": "mask", "mask": mask},
    ]
    content = {"version": "5.4.1", "shapes": shapes, "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    write_text(root / "labels/train/a.json", content)
    return "labelme"


def write_yolo(root: Path) -> Any:
    lines = [
        " ".join(map(str, [index, *(np.array(points) / [WIDTH, HEIGHT]).ravel()]))
        for index, points in ((2, TREE), (0, KEYHOLE), (1, HOUSE))
    ]
    write_text(root / "labels/train/a.txt", "\n".join(lines))
    return "yolo"


def write_yolo_with_names(root: Path) -> Any:
    write_yolo(root)
    write_text(root / "data.yaml", "names: {0: field, 1: house, 2: tree}")
    return "yolo"


def write_labelme_without_size(root: Path) -> Any:
    """Without the image's size, with a turned rectangle, a byte order mark, and shapes that cover nothing."""
    write_labelme(root)
    path = root / "labels/train/a.json"
    content = json.loads(path.read_text())
    del content["imageHeight"], content["imageWidth"]
    content["shapes"][0] = {"label": "field", "points": FIELD, "shape_type": "rotation"}
    content["shapes"] += [
        {"label": "tree", "points": [[1, 1], [9, 9]], "shape_type": "line"},
        {"label": "tree", "points": [[1, 1], [9, 9], [9, 1]], "shape_type": "linestrip"},
        {"label": "tree", "points": [[1, 1]], "shape_type": "point"},
        {"label": "tree", "points": [[1, 1], [2, 9]], "shape_type": "polygon"},
    ]
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return "labelme"


def via_regions() -> list[dict[str, Any]]:
    left, top, right, bottom = *TREE[0], *TREE[2]
    tree = {"name": "rect", "x": left, "y": top, "width": right - left, "height": bottom - top}
    outlines = {"field": KEYHOLE, "house": HOUSE}
    shapes = [
        (name, {"name": "polygon", "all_points_x": [x for x, _ in line], "all_points_y": [y for _, y in line]})
        for name, line in outlines.items()
    ]
    return [
        {"shape_attributes": shape, "region_attributes": {"kind": {"no": False, name: True}}}
        for name, shape in [*shapes, ("tree", tree), ("tree", {"name": "point", "cx": 1, "cy": 1})]
    ]


def write_via(root: Path) -> Any:
    """A project, in which version 1 would number the regions."""
    image = {"filename": "a.png", "size": 5, "regions": via_regions(), "file_attributes": {}}
    write_text(root / "labels/train/project.json", {"_via_settings": {}, "_via_img_metadata": {"a.png5": image}})
    return "via"


def write_via_csv(root: Path) -> Any:
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for number, region in enumerate(via_regions()):
        cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
        lines.append(f'a.png,5,"{{}}",4,{number},' + ",".join(f'"{cell}"' for cell in cells))
    write_text(root / "labels/train/via.csv", "\n".join(lines))
    return "via"


def write_supervisely(root: Path) -> Any:
    mask = Image.fromarray(np.ones((6, 6), np.uint8))
    mask.putpalette([0, 0, 0, 255, 255, 255])
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG", transparency=0)
    bitmap = {"data": base64.b64encode(zlib.compress(buffer.getvalue())).decode(), "origin": TREE[0]}
    objects = [
        {"classTitle": "field", "geometryType": "polygon", "points": {"exterior": FIELD, "interior": [POND]}},
        {"classTitle": "house", "geometryType": "polygon", "points": {"exterior": HOUSE, "interior": []}},
        {"classTitle": "tree", "geometryType": "bitmap", "bitmap": bitmap},
        {"classTitle": "tree", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}},
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    write_text(root / "labels/train/a.png.json", {"description": "", "tags": [], "size": size, "objects": objects})
    write_text(root / "meta.json", {"classes": [{"title": name} for name in ("house", "tree", "field")], "tags": []})
    return "supervisely"


def starts_of(mask: np.ndarray) -> str:
    """Kaggle's run lengths: pairs of a start, from 1 on, and a length."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(), [0]]))).reshape(-1, 2)
    return " ".join(f"{start + 1} {end - start}" for start, end in changes)


def write_kaggle(root: Path) -> Any:
    rows = [f"a.png,{CLASSES[index]},{starts_of((index == LABEL).T)}" for index in (1, 2, 3)]
    write_text(root / "labels/train/train.csv", "\n".join(["ImageId,ClassId,EncodedPixels", *rows, "b.png,tree,"]))
    return "kaggle_rle"


def write_kaggle_by_rows(root: Path) -> Any:
    """Image and class in one column, without the suffix of the file, the runs along the rows."""
    rows = [f"a_{CLASSES[index]},{starts_of(index == LABEL)}" for index in (1, 2, 3)]
    write_text(root / "labels/train/train.csv", "\n".join(["Image_Label,EncodedPixels", *rows]))
    return {"type": "kaggle_rle", "direction": "rows"}


def packed(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio packs its RGBA bytes: runs of one value, and one of literal bytes at the end."""
    data = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    bits = f"{data.size:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    runs, last = data[:-8], data[-8:]
    edges = [0, *(np.flatnonzero(np.diff(runs.astype(int))) + 1).tolist(), runs.size]
    for start, end in itertools.pairwise(edges):
        bits += f"1{3:02b}{end - start - 1:016b}{runs[start]:08b}"
    bits += f"0{0:02b}{last.size - 1:03b}" + "".join(f"{value:08b}" for value in last)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def write_label_studio(root: Path) -> Any:
    """A stroke whose class is a result of its own, a polygon, a rectangle; an older annotation, and a task without."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    percent = 100 / np.array([WIDTH, HEIGHT])
    corner, extent = TREE[0] * percent, np.subtract(TREE[2], TREE[0]) * percent
    box = {"x": corner[0], "y": corner[1], "width": extent[0], "height": extent[1], "rotation": 0}
    results = [
        {"id": "r1", "type": "brush", "value": {"format": "rle", "rle": packed(LABEL == 1)}, **size},
        {"id": "r1", "type": "labels", "value": {"labels": ["field"]}, **size},
        {"type": "polygonlabels", "value": {"points": (HOUSE * percent).tolist(), "polygonlabels": ["house"]}, **size},
        {"type": "rectanglelabels", "value": box | {"rectanglelabels": ["tree"]}, **size},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["tree"]}, **size},
        {"type": "choices", "value": {"choices": ["sunny"]}},
    ]
    content = [
        {
            "data": {"image": "/data/upload/1/0a1b2c3d-a.png"},
            "annotations": [
                {"result": results[2:3]}, {"result": results}, {"result": [], "was_cancelled": True}
            ],
        },
        {"data": {"image": "/data/upload/1/b.png"}, "annotations": []},
        {"data": {"image": "/data/upload/1/c.png"}},
    ]  # fmt: skip
    write_text(root / "labels/train/project.json", content)
    return "label_studio"


WRITERS = [
    write_index, write_rgb, write_rgb_with_palette, write_rgb_with_csv, write_voc, write_voc_indexed, write_cvat,
    write_coco, write_coco_run_lengths, write_labelme, write_labelme_without_size, write_yolo, write_yolo_with_names,
    write_via, write_via_csv, write_supervisely, write_kaggle, write_kaggle_by_rows, write_label_studio,
]  # fmt: skip


def image(root: Path, name: str = "a.png") -> None:
    save_image(root / "images/train" / name, np.repeat(LABEL[..., None] * 60, 3, axis=2))


def short_form(root: Path, label_format: Any, **data: Any) -> Path:
    data = {"classes": CLASSES, "palette": [list(colour) for colour in COLOURS], **data}
    data |= {} if label_format is None else {"label_format": label_format}
    write_text(root / "a.yaml", yaml.safe_dump({"recipe": "fastscnn", "data": data, "iterations": 2, "batch": 2}))
    return root / "a.yaml"


def train_set(root: Path, label_format: Any, **data: Any) -> SegmentationDataset:
    return build_dataset(load_config(short_form(root, label_format, **data)).train_dataloader.dataset | PLAIN)


PLAIN = {"pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]}


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_class_map(tmp_path, write):
    image(tmp_path)
    dataset = train_set(tmp_path, write(tmp_path))
    assert len(dataset) == 1
    np.testing.assert_array_equal(dataset[0].label, LABEL)
    assert not dataset[0].meta, "it would travel with every batch"
    counts = dataset.check_label(dataset.pairs[0][1])
    assert counts.tolist() == np.bincount(LABEL.ravel()).tolist(), "what checks and balancing see"


@pytest.mark.parametrize("write", WRITERS[1:])
@pytest.mark.parametrize("where", ["dataset", "transform"])
def test_formats_in_the_vocabulary_of_1x(tmp_path, write, where):
    image(tmp_path)
    spec = write(tmp_path)
    labels = "labels/train"
    for name in ("labels/train.json", "labels/instances_train.json"):
        labels = name if (tmp_path / name).exists() else labels
    section = {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images/train", "seg_map_path": labels},
        "metainfo": {"classes": CLASSES, "palette": COLOURS},
    }
    load = {"type": "LoadAnnotations"}
    if where == "dataset":
        section["label_format"] = spec
    else:
        load["label_format"] = spec
    dataset = build_dataset(section | {"pipeline": [{"type": "LoadImageFromFile"}, load]})
    np.testing.assert_array_equal(dataset[0].label, LABEL)


@pytest.mark.parametrize("write", WRITERS[7:])
def test_a_folder_in_each_format_is_recognised(tmp_path, write):
    image(tmp_path)
    spec = write(tmp_path)
    layout = find_layout(tmp_path)
    assert layout.label_format == (spec["type"] if isinstance(spec, dict) else spec)
    (section,) = layout.described_sections()
    options = label_facts(tmp_path, [section]).dataset_options() | {"label_format": spec, "holdout": None}
    dataset = build_dataset(section | options | PLAIN)
    names = CLASSES if write is not write_yolo else ["background", "class_0", "class_1", "class_2"]
    found = [name.strip("_") for name in dataset.classes]
    assert set(found) == set(names)
    np.testing.assert_array_equal(dataset[0].label, np.array([found.index(name) for name in names])[LABEL])


def test_the_short_form_knows_every_format():
    assert tuple(LABEL_FORMATS) == FORMATS


def test_a_transform_alone(tmp_path):
    image(tmp_path)
    write_yolo(tmp_path)
    load = TRANSFORMS.build({"type": "LoadAnnotations", "label_format": {"type": "yolo", "classes": CLASSES}})
    sample = Sample(image_path=tmp_path / "images/train/a.png", label_path=tmp_path / "labels/train/a.txt")
    np.testing.assert_array_equal(load(sample, np.random.default_rng(0)).label, LABEL)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_coco, ["background", "tree", "field", "house"]),
        (write_yolo_with_names, ["background", "field", "house", "tree"]),
        (write_cvat, ["tree", "house", "field", "background"]),
        (write_via, ["background", "field", "house", "tree"]),
        (write_supervisely, ["background", "house", "tree", "field"]),
        (write_kaggle, ["background", "field", "house", "tree"]),
        (write_label_studio, ["background", "field", "house", "tree"]),
    ],
)
def test_without_classes_the_files_name_them(tmp_path, write, expected):
    image(tmp_path)
    spec = write(tmp_path)
    labels = "labels/train.json" if spec == "coco" else "labels/train"
    section = {"type": "BaseSegDataset", "data_root": str(tmp_path), "label_format": spec, **PLAIN}
    dataset = build_dataset(section | {"data_prefix": {"img_path": "images/train", "seg_map_path": labels}})
    assert list(dataset.classes) == expected
    mapping = np.array([expected.index(name) for name in CLASSES])
    np.testing.assert_array_equal(dataset[0].label, mapping[LABEL])


def test_classes_in_any_order_renamed_and_left_out(tmp_path):
    image(tmp_path)
    options = {"classes": ["house", "plant"], "palette": None}
    dataset = train_set(tmp_path, write_coco(tmp_path), label_map={"tree": "plant"}, ignore=["field"], **options)
    np.testing.assert_array_equal(dataset[0].label, np.array([255, 255, 0, 1])[LABEL])  # no background among them
    dataset = train_set(tmp_path, {"type": "coco", "other": "ignore"}, **options)
    np.testing.assert_array_equal(dataset[0].label, np.array([255, 255, 0, 255])[LABEL])
    options["classes"] = ["background", "house"]
    dataset = train_set(tmp_path, {"type": "coco", "other": "background"}, **options)
    np.testing.assert_array_equal(dataset[0].label, np.array([0, 0, 1, 0])[LABEL])


def test_crowds_and_rings_as_pycocotools_has_them(tmp_path):
    image(tmp_path)
    content = coco((3, [flat(FIELD), flat(POND)]))
    content["annotations"].append(
        {"id": 8, "image_id": 7, "category_id": 9, "iscrowd": 1}
        | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts_of(LABEL == 3)}}
    )
    write_text(tmp_path / "labels/train.json", content)
    filled = train_set(tmp_path, {"type": "coco", "holes": False})[0].label
    assert (filled[12:20, 10:22] == 1).all() and (filled[22:28, 32:38] == 3).all()
    ignored = train_set(tmp_path, {"type": "coco", "crowd": "ignore"})[0].label
    assert (ignored[12:20, 10:22] == 0).all() and (ignored[22:28, 32:38] == 255).all()


def test_which_of_two_shapes_lies_on_top(tmp_path):
    image(tmp_path)
    write_text(tmp_path / "labels/train.json", coco((9, [flat(TREE)]), (5, [flat(HOUSE)])))
    assert train_set(tmp_path, "coco")[0].label[25, 35] == 3, "the smaller one"
    assert train_set(tmp_path, {"type": "coco", "order": "file"})[0].label[25, 35] == 2, "the later one"


def test_one_file_for_all_splits_and_nested_names(tmp_path):
    content = coco((9, [flat(TREE)]))
    content["images"] = [
        content["images"][0] | {"id": number, "file_name": name}
        for number, name in ((7, "images/train/x/a.png"), (8, "b.png"), (9, "c.png"))
    ]
    write_text(tmp_path / "all.json", content)
    image(tmp_path, "x/a.png")
    image(tmp_path, "b.png")
    dataset = train_set(tmp_path, "coco", labels="all.json")
    labels = {path.name: dataset[index].label.sum() for index, (path, _) in enumerate(dataset.pairs)}
    assert labels == {"a.png": 3 * 36, "b.png": 0}


# Geometry


def test_polygons_that_share_a_border_leave_no_gap():
    rng = np.random.default_rng(0)
    corners, centre = [(0, 0), (50, 0), (50, 40), (0, 40)], rng.uniform(5, 35, 2)
    covered = np.zeros((40, 50), int)
    for first, second in zip(corners, [*corners[1:], corners[0]], strict=True):
        top, left, mask = polygon([first, second, centre], (40, 50))
        covered[top : top + mask.shape[0], left : left + mask.shape[1]] += mask
    assert (covered == 1).all()


@pytest.mark.parametrize("shift", [(-20, -15), (30, 20), (0, 0), (0.5, 0.25), (-100, 0), (0, 100)])
def test_polygons_are_cut_to_the_image(shift):
    y, x = np.mgrid[:40, :50] + 0.5
    points = np.array([(5, 5), (45, 10), (20, 35)]) + shift
    inside = np.ones((40, 50), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0
    found = np.zeros((40, 50), bool)
    top, left, mask = polygon(points, (40, 50))
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert (found != inside).mean() < 1e-3


def test_parts_that_overlap_are_joined():
    patch = rings([[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]], (20, 20))
    assert patch.mask.sum() == 100 + 100 - 25


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_come_back(seed):
    mask = np.random.default_rng(seed).random((13, 17)) < 0.5
    for counts in (counts_of(mask), compressed(counts_of(mask))):
        np.testing.assert_array_equal(run_lengths(counts, 13, 17), mask)
    with pytest.raises(UserError, match="13x18"):
        run_lengths(counts_of(mask), 13, 18)


def test_the_text_of_pycocotools():
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:7] = mask[6, 8] = True
    np.testing.assert_array_equal(run_lengths("g03400000;N", 7, 9), mask)  # what its `encode` gives for the mask


# Mistakes


def broken_coco(**changes: Any) -> dict[str, Any]:
    content = coco((9, [flat(TREE)]))
    content["annotations"][0] |= changes
    return content


def expect(root: Path, spec: Any, words: list[str], **data: Any) -> None:
    """That opening or reading the data fails with these words."""
    try:
        failure = train_set(root, spec, **data)[0]
        assert isinstance(failure, LoadError), "nothing was wrong"
        message = failure.message
    except UserError as error:
        message = str(error)
    assert all(word in message for word in words), message


def test_an_unknown_colour(tmp_path):
    image(tmp_path)
    picture = np.array(COLOURS, np.uint8)[LABEL]
    picture[:4] = (1, 2, 3)
    picture[4, :6] = (9, 9, 9)
    save_image(tmp_path / "labels/train/a.png", picture)
    expect(tmp_path, "rgb", ["train/a.png", "[1, 2, 3] (10% of its pixels)", "1 further", "10% in total", "nearest"])
    label = train_set(tmp_path, {"type": "rgb", "other": "nearest"})[0].label
    assert (label[:5] == 0).all()
    assert (train_set(tmp_path, {"type": "rgb", "other": "ignore"})[0].label[:4] == 255).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (broken_coco(category_id=99), ["train.json/a.png, annotation 1", "category 99"]),
        (broken_coco(image_id=99), ["train.json", "annotation 1", "image 99"]),
        (broken_coco(category_id=[9]), ["a.png, annotation 1"]),
        (broken_coco(segmentation=[[1, 2]]), ["a.png, annotation 1"]),
        (broken_coco(segmentation=[[1, 2, 3]]), ["a.png, annotation 1", "damaged"]),
        (broken_coco(segmentation=[[1, 2, 3, float("nan"), 5, 6]]), ["annotation 1", "x 3, y nan"]),
        (broken_coco(segmentation={"size": [4, 4], "counts": [5]}), ["annotation 1", "4x4", "40x60"]),
        (broken_coco(segmentation={"size": [HEIGHT, WIDTH], "counts": [10**10]}), ["annotation 1", str(10**10)]),
        (coco() | {"images": [{"id": 7, "file_name": "a.png", "height": 1e999, "width": 6}]}, ["a.png", "infinity"]),
        (coco() | {"images": [{"id": 7, "file_name": "a.png", "height": 10**6, "width": 10**6}]}, ["a.png", "1000000"]),
        ({"images": []}, ["train.json", "not a COCO file", "categories"]),
        ("{", ["cannot read", "train.json"]),
    ],
)
def test_broken_coco_files(tmp_path, content, words):
    image(tmp_path)
    write_text(tmp_path / "labels/train.json", content)
    expect(tmp_path, "coco", words)


def test_images_that_the_file_does_not_list(tmp_path):
    image(tmp_path)
    image(tmp_path, "b.png")
    write_coco(tmp_path)
    expect(tmp_path, "coco", ["1 of 2 images", "are not in", "train.json", "b.png"])


def test_an_unknown_category(tmp_path):
    image(tmp_path)
    write_coco(tmp_path)
    words = [
        "train.json/a.png has the label 'tree'",
        "background, field, house",
        "label_map: {tree: CLASS}",
        "ignore: [tree]",
    ]
    expect(tmp_path, "coco", words, classes=CLASSES[:3], palette=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.1 0.1 0.5 0.5", ["a.txt, line 1", "a box"]),
        ("\n7 0 0 1 0 1 1", ["a.txt, line 2", "class 7", "field, house, tree"]),
        ("field 0 0 1 0 1 1", ["a.txt, line 1", "`class x y"]),
        ("0 0 0 1 0 1", ["a.txt, line 1", "5 numbers"]),
        ("0.5 0 0 1 0 1 1", ["a.txt, line 1", "`class x y"]),
        ("99999999999999999999 0 0 1 0 1 1", ["a.txt, line 1", "beyond the 255"]),
        ("nan 0 0 1 0 1 1", ["a.txt, line 1", "`class x y"]),
        ("0 0 nan 1 0 1 1", ["a.txt, line 1", "x 0, y nan"]),
        ("0 10 20 30 40 50 20", ["a.txt, line 1", "50 is not a share of the image's size"]),
    ],
)
def test_broken_yolo_files(tmp_path, text, words):
    image(tmp_path)
    write_text(tmp_path / "labels/train/a.txt", text)
    expect(tmp_path, "yolo", words)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"label": "pole", "points": TREE}, ["a.json has the label 'pole'", "not one of the classes"]),
        ({"label": "tree"}, ["a.json, shape 1", "no 'points'"]),
        ({"label": "tree", "points": [[float("nan"), 1], [2, 3], [4, 5]]}, ["a.json, shape 1", "x nan, y 1"]),
        ({"label": "tree", "points": [[1e300, 1], [2, 3], [4, 5]]}, ["a.json, shape 1", "x 1e+300"]),
        ({"label": "tree", "points": [[1, 1, 1], [2, 3, 1], [4, 5, 1]]}, ["a.json, shape 1", "3 numbers"]),
        ({"label": "tree", "points": [[1, 1]], "shape_type": "mask", "mask": "AAAA"}, ["a.json, shape 1", "its mask"]),
        (5, ["a.json, shape 1"]),
    ],
)
def test_broken_labelme_files(tmp_path, shape, words):
    image(tmp_path)
    write_text(tmp_path / "labels/train/a.json", {"imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]})
    expect(tmp_path, "labelme", words)


def test_a_label_of_another_size(tmp_path):
    image(tmp_path)
    content = coco((9, [flat(TREE)]))
    content["images"][0]["width"] = 61
    write_text(tmp_path / "labels/train.json", content)
    expect(tmp_path, "coco", ["train.json/a.png is 61x40", "images/train/a.png is 60x40"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cocoo", ["no label format is called 'cocoo'", "did you mean 'coco'"]),
        ({"type": "coco", "ordr": "file"}, ["no argument 'ordr'", "order"]),
        ({"type": "coco", "order": "size"}, ["'area'", "'file'", "'size'"]),
        ({"type": "coco", "other": "skip"}, ["error, ignore, background", "'skip'"]),
        ({"type": "rgb", "colours": [[0, 0, 0]]}, ["4 classes and 1 colours"]),
        ({"type": "rgb", "colours": {"field": [0, 0]}}, ["label_format.colours.field", "not a colour"]),
        ({"type": "rgb", "colours": "no.csv"}, ["no colour table", "no.csv"]),
        ("cvat", ["no labelmap.txt"]),
        (5, ["label_format must be the name of a format", "labelme"]),
    ],
)
def test_mistakes_in_the_config(tmp_path, spec, words):
    image(tmp_path)
    write_rgb(tmp_path)
    write_coco(tmp_path)
    expect(tmp_path, spec, words)


def test_training_on_a_coco_file(tmp_path):
    for split in ("train", "val"):
        for name in ("a.png", "b.png"):
            save_image(tmp_path / "images" / split / name, np.repeat(LABEL[..., None] * 60, 3, axis=2))
        content = coco((3, [flat(FIELD), flat(POND)]), (5, [flat(HOUSE)]), (9, [flat(TREE)]))
        content["images"].append(content["images"][0] | {"id": 8, "file_name": "b.png"})
        write_text(tmp_path / "labels" / f"{split}.json", content)
    config = short_form(tmp_path, "coco")
    overrides = {"train_dataloader.num_workers": 1, "crop": "32x32"}
    run = tz.train(config, work_dir=tmp_path / "run", overrides=overrides, quiet=True, device="cpu", check=False)
    assert run.finished and set(run.metrics["per_class"]) == set(CLASSES)
