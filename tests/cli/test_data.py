"""`terrazzo data stats`, `browse` and `init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import terrazzo as tz
from support.tiny import CLASSES, COLOURS, dataset_config, make_streets, save_image, save_label, street, tiny_config
from terrazzo.cli.main import main
from terrazzo.data.splits import load_for_data, open_splits
from terrazzo.data.statistics import Moments, survey
from terrazzo.transforms import read_image, read_label


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = make_streets(tmp_path_factory.mktemp("streets"))
    write_yaml(root / "street.yaml", short())
    return root


def short(**data: Any) -> dict[str, Any]:
    values = {"recipe": "fastscnn", "data": {"classes": CLASSES, **data}, "crop": "24x24", "batch": 2, "workers": 0}
    return values | {"iterations": 2}


def write_yaml(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def run(capsys, *arguments: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    code = main(["data", *map(str, arguments)])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


# Statistics


def test_statistics_are_those_of_all_pixels(streets, capsys):
    code, out, _ = run(capsys, "stats", streets / "street.yaml", "--json")
    found = json.loads(out)
    assert code == 0 and list(found["splits"]) == ["train", "val"], "the test set is that of validation"
    train = found["splits"]["train"]
    images = np.stack([read_image(path) for path in sorted((streets / "images/train").iterdir())]).astype(float)
    labels = np.stack([read_label(path) for path in sorted((streets / "labels/train").iterdir())])
    assert train["images"] == 6 and train["sizes"] == {"40x32": 6}
    np.testing.assert_allclose(train["mean"], images.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(train["std"], images.std(axis=(0, 1, 2)), rtol=1e-9)
    assert [row["pixels"] for row in train["classes"]] == np.bincount(labels.ravel()).tolist()
    assert [row["images"] for row in train["classes"]] == [6, 6, 6] and train["ignored"] == 0
    assert sum(row["share"] for row in train["classes"]) == pytest.approx(100)


def test_the_lines_go_into_the_config(streets, tmp_path, capsys):
    _, out, _ = run(capsys, "stats", streets / "street.yaml", "--split", "train")
    assert "train: 6 images, width x height 40x32 (6)" in out and "val:" not in out and "100.0" not in out
    lines = yaml.safe_load("\n".join(out.splitlines()[-2:]))
    config = tz.load_config(write_yaml(tmp_path / "a.yaml", short(root=str(streets)) | lines))
    assert config.model.data_preprocessor.mean == lines["mean"]
    values = tiny_config(streets)
    values["model"]["data_preprocessor"]["bgr_to_rgb"] = False  # a network that takes BGR
    code, out, _ = run(capsys, "stats", write_yaml(tmp_path / "b.yaml", values), "--split", "train")
    options = [line for line in out.splitlines() if line.startswith("model.data_preprocessor")]
    assert code == 0 and yaml.safe_load(options[0].partition("=")[2].strip("'")) == lines["mean"][::-1]


def test_bands_need_no_mean_to_compute_it(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for name in ("a", "b"):
            image = rng.normal(5000, 300, (20, 24, 6)).astype(np.float32)
            image[:3, :, 2] = np.nan
            np.save(tmp_path / "images" / split / f"{name}.npy", image)
            save_label(
                tmp_path / "labels" / split / f"{name}.png", np.full((20, 24), 255 if name == "a" else 1, np.uint8)
            )
    config = write_yaml(tmp_path / "a.yaml", short(bands=[3, 2, 1, 6]))
    code, out, err = run(capsys, "stats", config, "--json")
    found = json.loads(out)["splits"]["train"]
    assert code == 0, err
    np.testing.assert_allclose(found["mean"], 5000, atol=40)
    np.testing.assert_allclose(found["std"], 300, atol=30)
    assert found["ignored"] == 480 and [row["images"] for row in found["classes"]] == [0, 1, 0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_moments_join(kind):
    rng = np.random.default_rng(0)
    images = [rng.normal(100, 20, (size, size + 3, 5)).astype(kind) for size in (3, 9, 40)]
    joined = Moments.of(images[0]) + Moments.of(images[1]) + Moments.of(images[2])
    pixels = np.concatenate([image.reshape(-1, 5) for image in images]).astype(float)
    np.testing.assert_allclose(joined.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(joined.std, pixels.std(axis=0))


def test_statistics_through_wrappers(streets):
    part = dataset_config(streets, "train", augment=True)
    values = tiny_config(streets) | {
        "train_dataloader": {"dataset": {"type": "RepeatDataset", "dataset": part, "times": 5}}
    }
    dataset = open_splits(load_for_data(values), ["train"])["train"]
    assert len(dataset) == 30 and survey(dataset).images == 6


# Browsing


def test_a_page_of_samples(streets, tmp_path, capsys):
    arguments = ["browse", streets / "street.yaml", "--count", 3, "--out"]
    code, out, err = run(capsys, *arguments, tmp_path / "x" / "a.html")
    assert code == 0 and str(tmp_path / "x" / "a.png") in out, err
    page = (tmp_path / "x" / "a.html").read_text()
    assert page.count("<img") == 12 and "http://" not in page and "https://" not in page, "it holds all it shows"
    assert "RandomResize, RandomCrop, RandomFlip, PhotoMetricDistortion" in page
    assert all(name in page for name in CLASSES)
    run(capsys, *arguments, tmp_path / "b.html")
    assert (tmp_path / "b.html").read_text() == page, "the same seed draws the same"
    run(capsys, *arguments, tmp_path / "c.html", "--seed", 1)
    assert (tmp_path / "c.html").read_text() != page
    sheet = np.asarray(Image.open(tmp_path / "x" / "a.png"))
    assert sheet.shape[0] > 3 * 240 and sheet.std() > 20


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_splits_and_more_samples_than_there_are(streets, tmp_path, capsys, split):
    code, _, _ = run(capsys, "browse", streets / "street.yaml", "--split", split, "--out", tmp_path / "a.html")
    assert code == 0 and (tmp_path / "a.html").read_text().count("<img") == 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["browse", "--split", "vall"], "no split 'vall'"),
        (["browse", "--out", "a.png"], "a.png: the name must end in .html"),
        (["stats", "--split", "trian"], "no split 'trian'"),
    ],
)
def test_mistakes(streets, capsys, arguments, words):
    command, *options = arguments
    code, _, err = run(capsys, command, streets / "street.yaml", *options)
    assert code == 1 and words in err and err.count("\n") == 1


# A config for a folder that nobody has described


class Maker:
    """Writes streets in any layout: `add(image path, label path, seed)`."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root, self.options = root, options

    def add(self, image_path: str, label_path: str, seed: int) -> None:
        image, label = street(seed, 40, 48)
        save_image(self.root / image_path, image)
        label = self.options.get("values", lambda label: label)(label)
        path = self.root / label_path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps(labelme(label)))
        elif path.suffix == ".txt":
            path.write_text("0 0 0.5 1 0.5 1 1 0 1\n1 0.2 0.5 0.4 0.5 0.4 0.7")
        elif "palette" in self.options:
            indexed = Image.fromarray(label)
            indexed.putpalette(np.array(self.options["palette"], np.uint8).ravel().tolist())
            indexed.save(path)
        else:
            Image.fromarray(label).save(path)

    def splits(self, image_pattern: str, label_pattern: str, *splits: str) -> None:
        for place, split in enumerate(splits):
            for index in range(4):
                names = {"split": split, "name": f"{split}{index}"}
                self.add(image_pattern.format(**names), label_pattern.format(**names), 10 * place + index)


def labelme(label: np.ndarray) -> dict[str, Any]:
    height, width = label.shape
    points = [[0, height / 2], [width, height]]
    shapes = [{"label": "road", "points": points, "shape_type": "rectangle"}]
    return {"shapes": shapes, "imageHeight": height, "imageWidth": width}


def propose(capsys, root: Path, *options: Any) -> dict[str, Any]:
    """The proposed config, which opens as it stands; with the sizes of its splits under `sizes`."""
    target = root.parent / "out" / "proposed.yaml"
    code, out, err = run(capsys, "init", root, "--out", target, "--force", *options)
    assert code == 0 and str(target) in out, err
    assert "# " in out
    splits = open_splits(tz.load_config(target), ["train", "val"])
    return yaml.safe_load(target.read_text()) | {"sizes": [len(dataset) for dataset in splits.values()]}


@pytest.mark.parametrize(
    ("images", "labels", "splits", "expected"),
    [
        ("images/{split}/{name}.png", "labels/{split}/{name}.png", ["train", "val"], {"images": "images"}),
        ("img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png", ["train", "val", "test"], {"labels": "ann_dir"}),
        ("Images/{split}/{name}.jpg", "Masks/{split}/{name}.png", ["training", "validation"], {"val": "validation"}),
        ("{split}/images/{name}.jpg", "{split}/masks/{name}.png", ["train", "valid"], {"images": "{split}/images"}),
        ("a/images/{split}/x/{name}.jpg", "a/gt/{split}/x/{name}.png", ["train", "val"], {"images": "a/images"}),
        ("images/{name}.jpg", "masks/{name}_mask.png", ["a"], {"val": 0.2, "label_suffix": "_mask.png"}),
        ("{name}.jpg", "{name}_mask.png", ["a"], {"images": ".", "image_suffix": ".jpg", "label_suffix": "_mask.png"}),
        ("{name}.png", "{name}_label.png", ["a"], {"labels": ".", "image_suffix": ".png"}),
        ("{split}/{name}.png", "{split}/{name}_seg.png", ["train", "val"], {"images": "{split}"}),
        ("train/images/{name}.png", "train/labels/{name}.png", ["a"], {"train": "train", "val": 0.2}),
        ("{name}.jpg", "{name}.json", ["a"], {"label_format": "labelme", "classes": ["background", "road"]}),
        ("images/{split}/{name}.jpg", "labels/{split}/{name}.txt", ["train", "val"], {"label_format": "yolo"}),
        ("{split}/images/{name}.jpg", "{split}/labels/{name}.txt", ["train", "valid"], {"val": "valid"}),
    ],
)
def test_layouts(tmp_path, capsys, images, labels, splits, expected):
    Maker(tmp_path / "data").splits(images, labels, *splits)
    found = propose(capsys, tmp_path / "data")
    assert {key: found["data"].get(key) for key in expected} == expected
    assert found["sizes"] == ([4, 4] if len(splits) > 1 else [3, 1])
    assert ("test" in found["data"]) == ("test" in splits)
    assert found["crop"] == "32x32" and found["batch"] == (4 if len(splits) > 1 else 3)


@pytest.mark.parametrize("splits", [["train", "val"], ["default"]])
def test_voc_layout_with_lists_of_names(tmp_path, capsys, splits):
    Maker(tmp_path / "voc").splits("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png", *splits)
    for split in splits:
        path = tmp_path / "voc/ImageSets/Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(f"{split}{index}" for index in range(4)))
    found = propose(capsys, tmp_path / "voc")
    assert found["data"]["images"] == "JPEGImages" and found["data"]["labels"] == "SegmentationClass"
    assert found["data"]["train"] == f"ImageSets/Segmentation/{splits[0]}.txt"
    assert found["sizes"] == ([4, 4] if len(splits) > 1 else [3, 1])


GREY = {"values": lambda label: label * np.uint8(100)}
FROM_ONE = {"values": lambda label: label + np.uint8(1)}
VOID = {"values": lambda label: np.where(label == 2, 255, label).astype(np.uint8)}
INDEXED = {"palette": [[9, 9, 9], [200, 9, 9], [9, 9, 200]]}
COLOURED = {"values": lambda label: COLOURS[label]}
TWO = {"values": lambda label: np.minimum(label, 1)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"classes": ["class_0", "class_1", "class_2"]}),
        (TWO, {"classes": ["background", "foreground"], "label_map": None}),
        ({"values": lambda label: np.minimum(label, 1) * np.uint8(255)}, {"label_map": {255: 1}}),
        (GREY, {"classes": ["value_0", "value_100", "value_200"], "label_map": {0: 0, 100: 1, 200: 2}}),
        (
            {"values": lambda label: label + np.uint8(1)},
            {"reduce_zero_label": True, "classes": ["class_1", "class_2", "class_3"]},
        ),
        (
            {"values": lambda label: np.where(label == 2, 255, label).astype(np.uint8)},
            {"classes": ["background", "foreground"]},
        ),
        ({"palette": [[9, 9, 9], [200, 9, 9], [9, 9, 200]]}, {"palette": [[9, 9, 9], [200, 9, 9], [9, 9, 200]]}),
        (
            {"values": lambda label: np.array(COLOURS)[label]},
            {"label_format": "rgb", "palette": sorted(COLOURS.tolist())},
        ),
    ],
)
def test_classes_from_the_labels(tmp_path, capsys, options, expected):
    Maker(tmp_path / "data", **options).splits("images/{split}/{name}.png", "labels/{split}/{name}.png", "train", "val")
    found = propose(capsys, tmp_path / "data")
    assert {key: found["data"].get(key) for key in expected} == expected
    dataset = open_splits(tz.load_config(tmp_path / "out/proposed.yaml"), ["train"])["train"]
    present = [dataset.check_label(path) > 0 for _, path in dataset.pairs]
    assert np.any(present, axis=0).all(), "every class is there"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "sky\nroad\ncar\n", {"classes": CLASSES}),
        ("classes.txt", "sky\nroad\n", {"classes": CLASSES[:2], "ignore": [2]}),
        ("labels/class_names.txt", "sky\nroad\ncar\n", {"classes": CLASSES}),
        ("data.yaml", "names: [sky, road, car]", {"classes": CLASSES}),
        ("labelmap.txt", "sky:1,2,3::\nroad:4,5,6::\ncar:7,8,9::", {"classes": CLASSES}),
        ("class_dict.csv", "name,r,g,b\nsky,1,2,3\nroad,4,5,6\ncar,7,8,9", {"classes": CLASSES}),
    ],
)
def test_class_names_from_files(tmp_path, capsys, name, text, expected):
    Maker(tmp_path / "data").splits("images/{split}/{name}.png", "labels/{split}/{name}.png", "train", "val")
    (tmp_path / "data" / name).write_text(text)
    found = propose(capsys, tmp_path / "data")
    assert {key: found["data"].get(key) for key in expected} == expected


def test_black_and_white_masks_that_jpeg_has_changed(tmp_path, capsys):
    values = {"values": lambda label: np.minimum(label, 1) * np.uint8(255)}
    Maker(tmp_path / "data", **values).splits("images/{split}/{name}.png", "labels/{split}/{name}.jpg", "train", "val")
    found = propose(capsys, tmp_path / "data")["data"]
    grey = {"type": "rgb", "other": "nearest", "colours": [[0, 0, 0], [255, 255, 255]]}
    assert (found["label_format"], found["classes"]) == (grey, ["background", "foreground"])
    dataset = open_splits(tz.load_config(tmp_path / "out/proposed.yaml"), ["train"])["train"]
    label = dataset.read_label(dataset.pairs[0][1])
    assert (label != np.minimum(street(0, 40, 48)[1], 1)).mean() < 0.02
    assert main(["data", "check", str(tmp_path / "out/proposed.yaml")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("values", "names"), [((0, 128, 255), None), ((0, 255), ["background", "leaf"])])
def test_masks_that_were_resized_take_the_nearest_of_their_values(tmp_path, capsys, values, names):
    rng = np.random.default_rng(0)
    truth = {}
    for index in range(4):
        small = rng.integers(0, len(values), (6, 6))
        label = cv2.resize(np.array(values, np.uint8)[small], (90, 90), interpolation=cv2.INTER_NEAREST)
        soft = cv2.resize(cv2.blur(label, (5, 5)), (75, 75), interpolation=cv2.INTER_LINEAR)
        save_image(tmp_path / f"data/images/train/{index}.png", rng.integers(0, 255, (75, 75, 3), np.uint8))
        save_label(tmp_path / f"data/labels/train/{index}.png", soft)
        truth[f"{index}.png"] = np.abs(soft[..., None].astype(int) - np.array(values)).argmin(axis=-1)
    if names:
        (tmp_path / "data/classes.txt").write_text("leaf\n")
    found = propose(capsys, tmp_path / "data")["data"]
    colours = [[value] * 3 for value in values]
    assert found["label_format"] == {"type": "rgb", "other": "nearest", "colours": colours}
    assert found["classes"] == (names or ["background", "value_128", "value_255"])
    dataset = open_splits(tz.load_config(tmp_path / "out/proposed.yaml"), ["train"])["train"]
    for _, path in dataset.pairs:
        assert np.array_equal(dataset.read_label(path), truth[path.name])


ALPHA = np.array([[[7, 7, 7, 0]], [[7, 7, 7, 255]]], np.uint8)[:, 0]
MEANINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a shape in the alpha channel": (lambda label: ALPHA[np.minimum(label, 1)],
        {"label_format": "alpha", "classes": ["background", "foreground"]}),
    "65535": (lambda label: np.where(label == 2, 65535, label.astype(np.uint16)), {"ignore": [65535]}),
    "65535 beside three": (lambda label: np.where(np.eye(*label.shape) > 0, 65535, label.astype(np.uint16)),
        {"ignore": [65535], "classes": ["class_0", "class_1", "class_2"]}),
    "far apart": (lambda label: np.where(label == 2, 2000, label.astype(np.uint16)),
        {"classes": ["value_0", "value_1", "value_2000"], "label_map": {0: 0, 1: 1, 2000: 2}}),
    "1 and nothing": (lambda label: np.where(label == 1, 1, 255).astype(np.uint8),
        {"classes": ["background", "foreground"], "label_map": {255: 0}}),
}  # fmt: skip


@pytest.mark.parametrize("case", MEANINGS)
def test_what_else_values_mean(tmp_path, capsys, case):
    values, expected = MEANINGS[case]
    Maker(tmp_path / "data", values=values).splits(
        "images/{split}/{name}.png", "labels/{split}/{name}.png", "train", "val"
    )
    found = propose(capsys, tmp_path / "data")["data"]
    assert {key: found.get(key) for key in expected} == expected
    dataset = open_splits(tz.load_config(tmp_path / "out/proposed.yaml"), ["train"])["train"]
    assert all(dataset.check_label(path).sum() > 0 for _, path in dataset.pairs)


@pytest.mark.parametrize("case", ["one value", "one shown", "one name"])
def test_no_config_of_one_class(tmp_path, capsys, case):
    values = (lambda label: np.minimum(label, 1)) if case == "one name" else (lambda label: label * 0)
    Maker(tmp_path / "data", values=values).splits(
        "images/{split}/{name}.png", "labels/{split}/{name}.png", "train", "val"
    )
    if case == "one shown":  # in training; validation has another one
        save_label(tmp_path / "data/labels/val/val0.png", np.ones((40, 48), np.uint8))
    if case == "one name":
        (tmp_path / "data/classes.txt").write_text("building\n")
        assert propose(capsys, tmp_path / "data")["data"]["classes"] == ["background", "building"]
    else:
        assert main(["data", "init", str(tmp_path / "data"), "--out", str(tmp_path / "one.yaml")]) == 1
        assert "nothing to learn" in capsys.readouterr().err and not (tmp_path / "one.yaml").exists()


def test_a_fourth_band_is_proposed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(4):
        (tmp_path / "data/images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 4), np.uint8)).save(tmp_path / f"data/images/{index}.png")
        save_label(tmp_path / f"data/labels/{index}.png", rng.integers(0, 2, (32, 32)).astype(np.uint8))
    found = propose(capsys, tmp_path / "data")
    assert found["data"]["bands"] == [1, 2, 3, 4] and len(found["mean"]) == 4


def test_cvat_colours(tmp_path, capsys):
    Maker(tmp_path / "data", **COLOURED).splits("JPEGImages/{name}.png", "SegmentationClass/{name}.png", "a")
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(CLASSES, COLOURS.tolist(), strict=True)]
    (tmp_path / "data/labelmap.txt").write_text("\n".join(reversed(lines)))
    found = propose(capsys, tmp_path / "data")
    assert found["data"]["label_format"] == "cvat" and found["data"]["classes"] == CLASSES[::-1]


@pytest.mark.parametrize(
    ("images", "labels", "splits", "expected"),
    [
        ("images/{split}", "annotations/instances_{split}.json", ["train2017", "val2017"], {"val": "val2017"}),
        ("{split}", "{split}/_annotations.coco.json", ["train", "valid"], {"images": "{split}"}),
        ("images", "all.json", ["a"], {"val": 0.2, "labels": "all.json"}),
    ],
)
def test_coco_files(tmp_path, capsys, images, labels, splits, expected):
    for split in splits:
        content = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "road"}]}
        for index in range(4):
            name = f"{split}{index}.jpg"
            save_image(tmp_path / "data" / images.format(split=split) / name, street(index, 40, 48)[0])
            content["images"].append({"id": index, "file_name": name, "height": 40, "width": 48})
            outline = {
                "id": index,
                "image_id": index,
                "category_id": 5,
                "segmentation": [[0, 20, 48, 20, 48, 40, 0, 40]],
            }
            content["annotations"].append(outline)
        path = tmp_path / "data" / labels.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    found = propose(capsys, tmp_path / "data")
    assert found["data"]["classes"] == ["background", "road"] and found["data"]["label_format"] == "coco"
    assert {key: found["data"].get(key) for key in expected} == expected
    assert found["sizes"] == ([4, 4] if len(splits) > 1 else [3, 1])


@pytest.mark.parametrize("kind", ["index", "yolo", "rgb"])
def test_classes_without_a_training_pixel_are_left_out(tmp_path, capsys, kind):
    values = {"index": lambda label: 2 * label, "rgb": lambda label: COLOURS[label]}.get(kind, lambda label: label)
    suffix = ".txt" if kind == "yolo" else ".png"
    Maker(tmp_path / "data", values=values).splits(
        "images/{split}/{name}.png", "labels/{split}/{name}" + suffix, "train", "val"
    )
    if kind == "yolo":
        (tmp_path / "data/data.yaml").write_text("names: [road, car, dog]")
    if kind == "rgb":
        lines = [
            f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(CLASSES, COLOURS.tolist(), strict=True)
        ]
        (tmp_path / "data/labelmap.txt").write_text("\n".join(["dog:1,1,1::", *lines]))
    found = propose(capsys, tmp_path / "data")["data"]
    expected = {
        "index": {"classes": ["class_0", "class_2", "class_4"], "label_map": {1: 255, 2: 1, 3: 255, 4: 2}},
        "yolo": {"classes": ["background", "road", "car"], "ignore": ["dog"]},
        "rgb": {"classes": CLASSES, "ignore": ["dog"], "label_format": "cvat"},
    }[kind]
    assert {key: found.get(key) for key in expected} == expected
    assert main(["data", "check", str(tmp_path / "out/proposed.yaml")]) == 0, capsys.readouterr().out


def test_the_checks_fix_leaves_classes_out_by_name(tmp_path, capsys):
    Maker(tmp_path / "data").splits("images/{split}/{name}.png", "labels/{split}/{name}.txt", "train", "val")
    data = {
        "classes": ["background", "road", "car", "dog"],
        "label_format": {"type": "yolo", "names": ["road", "car", "dog"]},
    }
    config = write_yaml(tmp_path / "a.yaml", short(root="data") | {"data": {"root": "data", **data}})
    assert main(["data", "check", str(config)]) == 1
    assert main(["data", "check", str(config), "--fix"]) in (0, 1)
    assert main(["data", "check", str(config)]) == 0, capsys.readouterr().out
    assert yaml.safe_load(config.read_text())["data"]["classes"] == ["background", "road", "car"]


def test_bands_get_mean_and_std(tmp_path, capsys):
    rng = np.random.default_rng(0)
    maker = Maker(tmp_path / "data", **TWO)
    maker.splits("images/{name}.png", "labels/{name}.png", "a")
    for path in (tmp_path / "data/images").iterdir():
        np.save(path.with_suffix(".npy"), rng.normal(1000, 50, (40, 48, 6)).astype(np.float32))
        path.unlink()
    found = propose(capsys, tmp_path / "data")
    assert found["data"]["bands"] == [1, 2, 3, 4, 5, 6] and len(found["mean"]) == len(found["std"]) == 6
    np.testing.assert_allclose(found["std"], 50, rtol=0.1)


def test_the_proposed_config_trains_unchanged(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Maker(tmp_path / "data").splits("{name}.png", "{name}_mask.png", "a")
    assert run(capsys, "init", "data")[0] == 0
    text = (tmp_path / "data.yaml").read_text()
    assert (
        run(capsys, "init", "data")[2]
        == "error: data.yaml exists already: --force replaces it, --out FILE writes elsewhere\n"
    )
    assert (tmp_path / "data.yaml").read_text() == text
    overrides = {"iterations": 1, "val_interval": 1, "workers": 0}
    outcome = tz.train("data.yaml", overrides=overrides, quiet=True, device="cpu")
    assert outcome.finished and len(outcome.metrics["per_class"]) == 3


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["no folder"]),
        (["notes.md"], ["holds no image"]),
        (["a.png", "b.png"], ["which files are images", "images/ and labels/"]),
        (["images/train/a.png", "labels/train/b.png"], ["no label of the same name", "a.png"]),
        (["images/a.png", "labels/a.jpg", "images/b.png", "labels/b.jpg"], ["colours, too many for classes"]),
    ],
)
def test_folders_that_are_not_understood(tmp_path, capsys, files, words):
    for name in files:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("") if path.suffix == ".md" else save_image(path, street(0)[0])
    code, _, err = run(capsys, "init", tmp_path / "data", "--out", tmp_path / "a.yaml")
    assert code == 1 and all(word in err for word in words), err
    assert not (tmp_path / "a.yaml").exists()


def test_the_proposed_config_starts_with_the_line_for_editors(tmp_path, capsys):
    Maker(tmp_path / "data").splits("{name}.png", "{name}_mask.png", "a")
    assert run(capsys, "init", tmp_path / "data", "--out", tmp_path / "a.yaml")[0] == 0
    text = (tmp_path / "a.yaml").read_text()
    start, _, address = text.splitlines()[0].partition("=")
    assert start == "# yaml-language-server: $schema" and address.startswith("file:///")
    schema = json.loads(Path(url2pathname(urlparse(address).path)).read_text())
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install 'terrazzo[dev]'")
    jsonschema.validate(yaml.safe_load(text), schema)
