"""Folders as people have them: which images and labels `data init` pairs, and what it says about the rest."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.tiny import CLASSES, save_image, save_label, street
from terrazzo.cli.main import main
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.splits import open_splits
from terrazzo.errors import UserError

COUNT = 5


def fill(root: Path, *patterns: tuple[str | None, str | None], first: int = 0) -> None:
    """COUNT samples for each pattern of an image's and a label's path."""
    for number, (image_path, label_path) in enumerate(patterns):
        for name in range(first, first + COUNT):
            image, label = street(10 * number + name)
            if image_path is not None:
                save_image(root / image_path.format(name=name), image)
            if label_path is not None and label_path.endswith(".gif"):
                path = root / label_path.format(name=name)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(label).save(path)
            elif label_path is not None:
                save_label(root / label_path.format(name=name), label)


def proposed(root: Path) -> tuple[dict[str, Any], str]:
    """The data sets of the config that `data init` writes, and its text."""
    target = root.parent / "proposed.yaml"
    assert main(["data", "init", str(root), "--out", str(target), "--force"]) == 0
    return open_splits(tz.load_config(target)), target.read_text()


def all_pairs(datasets: dict[str, Any], root: Path) -> dict[str, str]:
    """The label of each image, both relative to the root."""
    return {
        str(Path(image).absolute().relative_to(root)): str(Path(label).absolute().relative_to(root))
        for dataset in datasets.values()
        for image, label in dataset.pairs
        if label is not None
    }


def expected(*patterns: tuple[str, str], first: int = 0) -> dict[str, str]:
    return {
        image.format(name=name): label.format(name=name)
        for image, label in patterns
        for name in range(first, first + COUNT)
    }


# name -> pairs that are used, files besides these (an image, a label)
LAYOUTS: dict[str, tuple[list[tuple[str, str]], list[tuple[str | None, str | None]]]] = {
    "a-folder-for-each-site": ([(f"{site}/images/{{name}}.tif", f"{site}/gt/{{name}}.tif") for site in "abc"], []),
    "sites-of-different-depth": (
        [("images/{name}.png", "masks/{name}.png"), ("more/day2/images/{name}.png", "more/day2/masks/{name}.png")],
        [],
    ),
    "a-folder-for-each-patient": (
        [(f"TCGA_{p}/TCGA_{p}_{{name}}.tif", f"TCGA_{p}/TCGA_{p}_{{name}}_mask.tif") for p in (1, 2)],
        [],
    ),
    "rural-and-urban": (
        [
            (f"{split}/{area}/images_png/{split}{{name}}.png", f"{split}/{area}/masks_png/{split}{{name}}.png")
            for split in ("Train", "Val")
            for area in ("Rural", "Urban")
        ],
        [("Test/Urban/images_png/t{name}.png", None)],
    ),
    "split-and-role-in-one-name": (
        [(f"{s}_images/{s}{{name}}.png", f"{s}_masks/{s}{{name}}.png") for s in ("train", "val")],
        [],
    ),
    "role-of-labels-alone": (
        [(f"{s}/{s}{{name}}.png", f"{s}_labels/{s}{{name}}.png") for s in ("train", "val", "test")],
        [],
    ),
    "labels-inside-the-folder-of-images": ([("{name}.jpg", "masks/{name}.png")], []),
    "nnu-net": (
        [("imagesTr/case_{name}_0000.png", "labelsTr/case_{name}.png")],
        [("imagesTs/other_{name}_0000.png", None)],
    ),
    "carvana": ([("imgs/car_{name}.jpg", "masks/car_{name}_mask.gif")], []),
    "deepglobe": (
        [("train/{name}_sat.jpg", "train/{name}_mask.png")],
        [("valid/9{name}_sat.jpg", None), ("test/8{name}_sat.jpg", None)],
    ),
    "isic": (
        [("Training_Input/ISIC_00{name}.jpg", "Training_GroundTruth/ISIC_00{name}_segmentation.png")],
        [("Test_Input/ISIC_10{name}.jpg", None)],
    ),
    "superpixels-beside-the-masks": (
        [("images/ISIC_{name}.jpg", "masks/ISIC_{name}_segmentation.png")],
        [(None, "masks/ISIC_{name}_superpixels.png")],
    ),
    "oxford-pets": ([("images/cat_{name}.jpg", "annotations/trimaps/cat_{name}.png")], []),
    "kitti": (
        [("training/image_2/00{name}_10.png", "training/semantic/00{name}_10.png")],
        [("testing/image_2/10{name}_10.png", None), (None, "training/instance/00{name}_10.png")],
    ),
    "drive": (
        [
            ("training/images/2{name}_training.tif", "training/1st_manual/2{name}_manual1.gif"),
            ("test/images/0{name}_test.tif", "test/1st_manual/0{name}_manual1.gif"),
        ],
        [(None, "training/mask/2{name}_training_mask.gif"), (None, "test/mask/0{name}_test_mask.gif")],
    ),
    "words-in-front-of-numbers": ([("images/img_{name}.png", "masks/mask_{name}.png")], []),
    "words-in-front-beside-each-other": ([("img_{name}.png", "mask_{name}.png")], []),
    "letters-in-front": ([("photos/p{name}.jpg", "segs/s{name}.png")], []),
    "capital-letters": ([("DSC{name}.JPG", "DSC{name}_Mask.png")], []),
    "camel-case": ([("CameraRGB/{name}.png", "CameraSeg/{name}.png")], []),
    "other-pictures-too": (
        [("images/{name}.jpg", "masks/{name}.png")],
        [("overlay/{name}.jpg", None), ("masks_color/{name}.png", None)],
    ),
    "names-that-say-nothing": ([("foo/{name}.png", "bar/{name}.png")], []),
    "several-suffixes": (
        [("images/a{name}.png", "masks/a{name}.png"), ("images/b{name}.JPG", "masks/b{name}.png")],
        [],
    ),
}


@pytest.mark.filterwarnings("ignore:.*have no image of the same name")
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_labelled_image_is_used_with_its_own_label(name, tmp_path):
    patterns, others = LAYOUTS[name]
    root = tmp_path / "data"
    fill(root, *patterns, *others)
    datasets, text = proposed(root)
    assert all_pairs(datasets, root) == expected(*patterns)
    assert {"train", "val"} <= datasets.keys()
    assert ("# Left out: " in text) == any(image or label for image, label in others)


LISTS: dict[str, tuple[str, str, str]] = {  # suffix of the list, header, a line
    "paddleseg": ("_list.txt", "", "images/i{name}.jpg labels/l{name}.png"),
    "tabs": (".txt", "", "images/i{name}.jpg\tlabels/l{name}.png"),
    "backslashes": (".txt", "", "images\\i{name}.jpg labels\\l{name}.png"),
    "dots": (".txt", "", "./images/i{name}.jpg ./labels/l{name}.png"),
    "from-another-machine": (".txt", "", "/home/me/images/i{name}.jpg,/home/me/labels/l{name}.png"),
    "csv": (".csv", "image,mask\n", "images/i{name}.jpg,labels/l{name}.png"),
    "csv-the-other-way-round": (".csv", "mask_path,image_path\n", "labels/l{name}.png,images/i{name}.jpg"),
    "csv-with-an-index": (".csv", ",image,mask\n", "{name},images/i{name}.jpg,labels/l{name}.png"),
    "csv-without-a-header": (".csv", "", "images/i{name}.jpg;labels/l{name}.png"),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_pairs(name, tmp_path):
    suffix, header, line = LISTS[name]
    root = tmp_path / "data"
    fill(root, ("images/i{name}.jpg", "labels/l{name}.png"))
    for split, numbers in (("train", range(3)), ("val", range(3, COUNT))):
        (root / f"{split}{suffix}").write_text(header + "".join(line.format(name=n) + "\n" for n in numbers))
    datasets, _ = proposed(root)
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 3, "val": 2}
    assert all_pairs(datasets, root) == expected(("images/i{name}.jpg", "labels/l{name}.png"))


def test_a_table_with_a_column_of_splits(tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/i{name}.jpg", "labels/l{name}.png"))
    splits = ("train", "train", "train", "valid", "test")
    rows = (f"images/i{n}.jpg,labels/l{n}.png,{split}\n" for n, split in enumerate(splits))
    (root / "metadata.csv").write_text("filename,mask,split\n" + "".join(rows))
    datasets, _ = proposed(root)
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 3, "val": 1, "test": 1}


@pytest.mark.parametrize(
    "line", ["./images/{name}.jpg", "images/{name}.jpg", "/home/me/d/images/{name}.jpg", "{name} 1 2"]
)
def test_lists_of_images(line, tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.jpg", "annotations/trimaps/{name}.png"))
    for word, numbers in (("trainval", range(4)), ("test", range(4, COUNT))):
        path = root / "annotations" / f"{word}.txt"
        path.write_text("".join(line.format(name=number) + "\n" for number in numbers))
    datasets, _ = proposed(root)
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 3, "val": 1, "test": 1}
    assert datasets["test"].pairs[0][0].name == "4.jpg"


def test_names_in_two_unicode_forms(tmp_path):
    root = tmp_path / "data"
    for name in range(COUNT):
        image, label = street(name)
        save_image(root / "images" / unicodedata.normalize("NFC", f"é{name}.jpg"), image)
        save_label(root / "labels" / unicodedata.normalize("NFD", f"é{name}.png"), label)
    assert len(all_pairs(proposed(root)[0], root)) == COUNT


def test_a_linked_folder_beside_a_real_one(tmp_path):
    fill(tmp_path / "nas", ("images/b{name}.png", "masks/b{name}.png"))
    root = tmp_path / "data"
    fill(root, ("images/day1/a{name}.png", "masks/day1/a{name}.png"))
    for folder in ("images", "masks"):
        (root / folder / "day2").symlink_to(tmp_path / "nas" / folder)
    assert len(all_pairs(proposed(root)[0], root)) == 2 * COUNT


def test_a_second_link_to_a_folder_adds_no_copies(tmp_path):
    root = tmp_path / "data"
    fill(root, ("day1/images/{name}.png", "day1/masks/{name}.png"))
    (root / "latest").symlink_to(root / "day1")
    assert len(all_pairs(proposed(root)[0], root)) == COUNT


def test_a_stray_picture_is_excluded_by_name(tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.jpg", "masks/{name}.png"))
    save_image(root / "images/thumbnail.jpg", street(9)[0])
    datasets, text = proposed(root)
    assert all_pairs(datasets, root) == expected(("images/{name}.jpg", "masks/{name}.png"))
    assert "exclude: [images/thumbnail.jpg]" in text
    assert "# Left out: 1 of 6 images, which have no label: images/thumbnail.jpg" in text


def test_many_images_without_masks_are_skipped(tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.png", "masks/{name}.png"))
    for index in range(25):
        save_image(root / f"images/new{index}.png", street(index)[0])
    datasets, text = proposed(root)
    assert sum(map(len, datasets.values())) == COUNT
    assert "unlabelled: skip" in text and "# Left out: 25 of 30 images" in text


def test_images_without_outlines_are_background_where_most_have_some(tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.png", None))
    for name in range(3):
        (root / "labels").mkdir(exist_ok=True)
        (root / f"labels/{name}.txt").write_text("0 0 0.5 1 0.5 1 1 0 1")
    datasets, text = proposed(root)
    assert sum(map(len, datasets.values())) == COUNT
    assert "unlabelled: background" in text
    samples = {
        sample.image_path.stem: sample for one in datasets.values() for sample in (one[0, i] for i in range(len(one)))
    }
    assert set(np.unique(samples["4"].label)) <= {0, 255} and 0 in samples["4"].label


MASKS = (
    "masks/{kind}/{name}.png",
    "masks/{name}_{kind}.png",
    "masks/{name}/{kind}.png",
    "masks/{kind}/{name}_mask.png",
)


@pytest.mark.parametrize("pattern", MASKS)
def test_a_mask_for_each_class(pattern, tmp_path):
    root = tmp_path / "data"
    labels = {}
    for name in range(COUNT):
        image, labels[str(name)] = street(name)
        save_image(root / f"images/{name}.png", image)
        for index, kind in enumerate(CLASSES):
            save_label(root / pattern.format(kind=kind, name=name), 255 * (labels[str(name)] == index).astype(np.uint8))
    datasets, _ = proposed(root)
    assert sorted(datasets["train"].classes) == sorted(CLASSES)
    order = [CLASSES.index(name) for name in datasets["train"].classes]
    for dataset in datasets.values():
        for image, label in dataset.pairs:
            np.testing.assert_array_equal(np.array(order)[dataset.read_label(label)], labels[image.stem])


TABLES = {
    "_classes.csv": "Pixel Value, Class\n0, sky\n1, road\n2, car\n",
    "id2label.json": json.dumps({"0": "sky", "1": "road", "2": "car"}),
    "label2id.json": json.dumps({"car": 2, "road": 1, "sky": 0}),
    "dataset.json": json.dumps({"labels": {"sky": 0, "road": 1, "car": 2}, "numTraining": 5}),
    "class_dict.csv": "name,r,g,b,id\nsky,0,0,255,0\nroad,9,9,9,1\ncar,255,0,0,2\n",
    "classes.txt": "0 sky\n1: road\n2 car\n",
    "labels.csv": "id;name\n0;sky\n1;road\n2;car\n",
    "classes.json": json.dumps([{"name": "sky", "id": 0}, {"name": "road", "id": 1}, {"name": "car", "id": 2}]),
    "palette.csv": "sky,#0000ff\nroad,#090909\ncar,#ff0000\n",
    "classes.yaml": "names: [sky, road, car]\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_class_names_from_a_table(table, tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.png", "masks/{name}.png"))
    (root / table).write_text(TABLES[table])
    datasets, text = proposed(root)
    assert list(datasets["train"].classes) == CLASSES
    assert f"from {table}" in text


COLOURED = {
    "class_dict.csv": "name,color\nsky,#0000ff\nroad,#090909\ncar,#ff0000\n",
    "classes.csv": "id,name,r,g,b\n0,sky,0,0,255\n1,road,9,9,9\n2,car,255,0,0\n",
    "label_colors.txt": "0 0 255 sky\n9 9 9 road\n255 0 0 car\n",
    "colormap.json": json.dumps({"sky": [0, 0, 255], "road": [9, 9, 9], "car": "#ff0000"}),
}


@pytest.mark.parametrize("table", COLOURED)
def test_colours_from_a_table(table, tmp_path):
    root = tmp_path / "data"
    colours = np.array([[0, 0, 255], [9, 9, 9], [255, 0, 0]], np.uint8)
    for name in range(COUNT):
        image, label = street(name)
        save_image(root / f"images/{name}.png", image)
        save_image(root / f"masks/{name}.png", colours[label])
    (root / table).write_text(COLOURED[table])
    dataset = proposed(root)[0]["train"]
    assert list(dataset.classes) == CLASSES
    image, label = dataset.pairs[0]
    np.testing.assert_array_equal(dataset.read_label(label), street(int(image.stem))[1])


def test_values_with_gaps_take_the_names_of_a_table(tmp_path):
    root = tmp_path / "data"
    for name in range(COUNT):
        image, label = street(name)
        save_image(root / f"images/{name}.png", image)
        save_label(root / f"masks/{name}.png", np.array([7, 11, 30], np.uint8)[label])
    (root / "classes.csv").write_text("id,name\n7,sky\n11,road\n30,car\n")
    dataset = proposed(root)[0]["train"]
    assert list(dataset.classes) == CLASSES
    image, label = dataset.pairs[0]
    np.testing.assert_array_equal(dataset.read_label(label), street(int(image.stem))[1])


def test_no_data_beside_named_classes_needs_no_name(tmp_path):
    root = tmp_path / "data"
    for name in range(COUNT):
        image, label = street(name)
        save_image(root / f"images/{name}.png", image)
        save_label(root / f"masks/{name}.png", np.where(np.eye(*label.shape) > 0, 65535, label.astype(np.uint16)))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    datasets, text = proposed(root)
    assert list(datasets["train"].classes) == CLASSES
    assert "ignore: [65535]" in text and "name it, or map it" not in text


def test_a_list_of_classes_that_contradicts_labels_or_another_list_is_said(tmp_path):
    root = tmp_path / "data"
    fill(root, ("images/{name}.png", "masks/{name}.png"))
    (root / "classes.txt").write_text("sky\nroad\n")
    (root / "label_names.txt").write_text("a\nb\nc\n")
    text = proposed(root)[1]
    assert "# Classes.txt names 2 classes, but the labels also hold 2, which is ignored" in text
    assert (
        "classes.txt names 2 classes (sky, road), which are taken, but label_names.txt names 3 (a, b, c)"
        in text.replace("# C", "c")
    )


def test_what_is_not_known_is_named(tmp_path):
    fill(tmp_path, ("foo/{name}.jpg", None))
    (tmp_path / "bar").mkdir()
    for name in range(COUNT):
        (tmp_path / f"bar/{name}.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match=r"5 \.xml in bar/, 5 \.jpg in foo/; boxes or outlines in XML: export them"):
        find_layout(tmp_path)
