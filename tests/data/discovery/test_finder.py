"""The finder of folder layouts: `data init`, `data check DIR` and `--data-root` read the same splits and pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import CLASSES, COLOURS, save_image, save_label, street
from terrazzo.cli.main import main
from terrazzo.data.build import build_dataset
from terrazzo.data.checks.run import folder_specs
from terrazzo.data.discovery.data_root import data_sets, locate
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.splits import open_splits
from terrazzo.errors import UserError

RECIPE = "fast_scnn_1xb2-1k_streets-32x32"
FORMS: dict[str, Callable[[np.ndarray], str]] = {
    ".json": lambda label: json.dumps(
        {
            "shapes": [{"label": "road", "points": [[0, 16], [40, 32]], "shape_type": "rectangle"}],
            "imageHeight": label.shape[0],
            "imageWidth": label.shape[1],
        }
    ),
    ".txt": lambda label: "0 0 0.5 1 0.5 1 1 0 1",
}


def add(root: Path, image_path: str, *label_paths: str, seed: int = 0) -> None:
    """Write a street and its labels, in the form that the suffix of each path asks for."""
    image, label = street(seed)
    save_image(root / image_path, image)
    for path in label_paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix in FORMS:
            target.write_text(FORMS[target.suffix](label))
        elif "color" in target.name:
            save_image(target, COLOURS[label])
        else:
            save_label(target, label)


def fill(root: Path, patterns: tuple[str, ...], splits: tuple[str, ...]) -> None:
    """Five samples for each split by patterns of the image's and the labels' paths."""
    for number, split in enumerate(splits):
        for index in range(5):
            paths = [pattern.format(split=split, name=f"{split}{index}") for pattern in patterns]
            add(root, *paths, seed=10 * number + index)


def write_list(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def write_lists(folder: str) -> Callable[[Path], None]:
    """Lists of the names of the splits of `fill`."""

    def write(root: Path) -> None:
        for split in ("train", "val"):
            write_list(root / folder / f"{split}.txt", *(f"{split}{index}" for index in range(5)))

    return write


def write_coco(root: Path) -> None:
    """A COCO file for each split of `fill`."""
    for split in ("train2017", "val2017"):
        names = [f"{split}{index}.png" for index in range(5)]
        outline = [[0, 16, 40, 16, 40, 32, 0, 32]]
        content = {
            "images": [{"id": index, "file_name": name, "height": 32, "width": 40} for index, name in enumerate(names)],
            "annotations": [
                {"id": index, "image_id": index, "category_id": 5, "segmentation": outline} for index in range(5)
            ],
            "categories": [{"id": 5, "name": "road"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def link_images(root: Path) -> None:
    """Move the images elsewhere and leave a link."""
    (root / "images").rename(root.parent / "elsewhere")
    (root / "images").symlink_to(root.parent / "elsewhere")


IMAGE, LABEL = "images/{split}/{name}.png", "labels/{split}/{name}.png"
CITYSCAPES = (
    "leftImg8bit/{split}/ulm/{name}_leftImg8bit.png",
    *(f"gtFine/{{split}}/ulm/{{name}}_gtFine_{kind}.png" for kind in ("color", "labelIds", "labelTrainIds")),
)
BOTH, ALL = ("train", "val"), ("train", "val", "test")
# name -> paths of a sample, words of the splits, what else is written, images of each split, ending of a label's path
SHAPES: dict[str, tuple[Any, ...]] = {
    "split-below": ((IMAGE, LABEL), BOTH, None, {"train": 5, "val": 5}, "labels/train/train0.png"),
    "split-above": (
        ("{split}/images/{name}.png", "{split}/labels/{name}.png"),
        ("train", "valid"),
        None,
        {"train": 5, "val": 5},
        "train/labels/train0.png",
    ),
    "with-a-test-set": ((IMAGE, LABEL), ALL, None, {"train": 5, "val": 5, "test": 5}, "labels/train/train0.png"),
    "test-set-without-labels": (
        (IMAGE, LABEL),
        BOTH,
        lambda root: fill(root, (IMAGE,), ("test",)),
        {"train": 5, "val": 5},
        "labels/train/train0.png",
    ),
    "ade": (
        ("img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png"),
        ("training", "validation"),
        None,
        {"train": 5, "val": 5},
        "ann_dir/training/training0.png",
    ),
    "cityscapes": (CITYSCAPES, BOTH, None, {"train": 5, "val": 5}, "train/ulm/train0_gtFine_labelTrainIds.png"),
    "lists": (
        ("images/{name}.png", "masks/{name}.png"),
        BOTH,
        write_lists(""),
        {"train": 5, "val": 5},
        "masks/train0.png",
    ),
    "nothing-assigns-splits": (
        ("images/{name}.png", "masks/{name}.png"),
        BOTH,
        None,
        {"train": 8, "val": 2},
        ".png",
    ),
    "training-folder-alone": ((IMAGE, LABEL), ("train",), None, {"train": 4, "val": 1}, ".png"),
    "training-and-test-folders": (
        (IMAGE, LABEL),
        ("train", "test"),
        None,
        {"train": 4, "val": 1, "test": 5},
        ".png",
    ),
    "suffix-beside": (
        ("{name}.jpg", "{name}_mask.png"),
        ("a",),
        None,
        {"train": 4, "val": 1},
        "_mask.png",
    ),
    "suffix-beside-in-splits": (
        ("{split}/{name}.jpg", "{split}/{name}_mask.png"),
        BOTH,
        None,
        {"train": 5, "val": 5},
        "train/train0_mask.png",
    ),
    "voc": (
        ("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png"),
        BOTH,
        write_lists("ImageSets/Segmentation"),
        {"train": 5, "val": 5},
        "SegmentationClass/train0.png",
    ),
    "voc-devkit": (
        ("VOC2012/JPEGImages/{name}.jpg", "VOC2012/SegmentationClass/{name}.png"),
        BOTH,
        write_lists("VOC2012/ImageSets/Segmentation"),
        {"train": 5, "val": 5},
        "VOC2012/SegmentationClass/train0.png",
    ),
    "coco": (
        ("images/{split}/{name}.png",),
        ("train2017", "val2017"),
        write_coco,
        {"train": 5, "val": 5},
        "annotations/instances_train2017.json/train20170.png",
    ),
    "yolo": (
        ("images/{split}/{name}.png", "labels/{split}/{name}.txt"),
        BOTH,
        None,
        {"train": 5, "val": 5},
        "labels/train/train0.txt",
    ),
    "labelme": (("{name}.jpg", "{name}.json"), ("a",), None, {"train": 4, "val": 1}, ".json"),
    "colours": (
        ("images/{split}/{name}.png", "masks/{split}/{name}_color.png"),
        BOTH,
        None,
        {"train": 5, "val": 5},
        "masks/train/train0_color.png",
    ),
    "linked-folder": ((IMAGE, LABEL), BOTH, link_images, {"train": 5, "val": 5}, "labels/train/train0.png"),
}


def by_data_init(root: Path) -> dict[str, Any]:
    """The data sets of the config that `data init` writes."""
    target = root.parent / "proposed.yaml"
    assert main(["data", "init", str(root), "--out", str(target)]) == 0
    return open_splits(tz.load_config(target))


def by_data_check(root: Path) -> dict[str, Any]:
    """The data sets that `data check DIR` reads."""
    return {split: build_dataset(section) for split, section in folder_specs(root).items()}


def by_data_root(root: Path) -> dict[str, Any]:
    """The data sets of a recipe with `--data-root`."""
    config = locate(tz.load_config(RECIPE), root)
    sections = {split: next(data_sets(config[f"{split}_dataloader"])) for split in ALL}
    datasets = {split: build_dataset(section) for split, section in sections.items()}
    if datasets["test"].pairs == datasets["val"].pairs:
        del datasets["test"]
    return datasets


@pytest.mark.filterwarnings("ignore:.*(held out|no classes.txt)")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_three_commands_agree(tmp_path, shape):
    paths, splits, write, counts, label = SHAPES[shape]
    root = tmp_path / "data"
    fill(root, paths, splits)
    if write is not None:
        write(root)
    answers = [ask(root) for ask in (by_data_init, by_data_check, by_data_root)]
    for datasets in answers:
        assert {split: len(dataset) for split, dataset in datasets.items()} == counts
    pairs = [{split: resolved(dataset) for split, dataset in datasets.items()} for datasets in answers]
    assert pairs[0] == pairs[1] == pairs[2]
    assert pairs[0]["train"][0][1].endswith(label)
    labels = [datasets["train"].read_label(datasets["train"].pairs[0][1]) for datasets in answers]
    assert labels[0].any() and labels[0].shape == (32, 40)
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], labels[2])


def resolved(dataset: Any) -> list[tuple[str, str]]:
    """The pairs of a data set, whatever the paths are relative to."""
    return [(str(Path(image).absolute()), str(Path(label).absolute())) for image, label in dataset.pairs]


def test_endings_begin_with_their_separator(tmp_path):
    fill(tmp_path, CITYSCAPES, BOTH)
    layout = find_layout(tmp_path)
    assert (layout.image_suffix, layout.label_suffix) == ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")


def test_cvat_lists_the_training_images_in_default_txt(tmp_path):
    fill(tmp_path, ("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png"), ("a",))
    write_list(tmp_path / "ImageSets/Segmentation/default.txt", *(f"a{index}" for index in range(4)))
    layout = find_layout(tmp_path)
    assert layout.splits == {"train": "ImageSets/Segmentation/default.txt", "val": 0.2}


def test_validation_images_without_labels_are_reported_not_replaced(tmp_path, capsys):
    fill(tmp_path / "data", (IMAGE, LABEL), ("train",))
    fill(tmp_path / "data", (IMAGE,), ("val",))
    assert find_layout(tmp_path / "data").splits == {"train": "train", "val": "val"}
    assert main(["data", "check", str(tmp_path / "data")]) == 1
    assert "there is no label folder" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"there is no label folder .*labels/val"):
        locate(tz.load_config(RECIPE), tmp_path / "data")


def test_data_init_holds_training_images_out_where_no_validation_image_has_a_label(tmp_path):
    fill(tmp_path / "data", (IMAGE, LABEL), ("train",))
    fill(tmp_path / "data", (IMAGE,), ("val",))
    datasets = by_data_init(tmp_path / "data")
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 4, "val": 1}
    assert "# Left out: the 5 images of val, none of which has a label" in (tmp_path / "proposed.yaml").read_text()


def test_a_config_needs_training_images(tmp_path, capsys):
    fill(tmp_path / "data", (IMAGE, LABEL), ("val",))
    assert main(["data", "init", str(tmp_path / "data"), "--out", str(tmp_path / "a.yaml")]) == 1
    assert "has no training images: found images/val and labels/val" in capsys.readouterr().err
    assert list(folder_specs(tmp_path / "data")) == ["val"]


def test_a_link_that_leads_back_up_ends_the_search(tmp_path):
    fill(tmp_path, (IMAGE, LABEL), BOTH)
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    assert find_layout(tmp_path).entries() == {"images": "images", "labels": "labels"}


def test_class_names_near_the_labels_are_taken_by_data_root(tmp_path):
    fill(tmp_path, (IMAGE, LABEL), BOTH)
    write_list(tmp_path / "labels" / "classes.txt", *CLASSES)
    config = locate(tz.load_config(RECIPE), tmp_path)
    assert next(data_sets(config.train_dataloader))["metainfo"] == {"classes": CLASSES}
