"""Folders in which some images have no label: background where that is usual, else left out by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import save_image, save_label, street
from terrazzo.cli.main import main
from terrazzo.data.splits import load_for_data, open_splits

LABEL = street(0)[1]
OUTLINE = [[2, 2], [30, 2], [30, 20], [2, 20]]


def add_image(path: Path, scale: int = 1) -> None:
    save_image(path, street(0)[0][::scale, ::scale])


def write_masks(root: Path, name: str) -> None:
    save_label(root / f"labels/{name}.png", LABEL)


def write_labelme(root: Path, name: str) -> None:
    (root / "labels").mkdir(exist_ok=True)
    (root / f"labels/{name}.json").write_text(json.dumps({"shapes": [{"label": "car", "points": OUTLINE}]}))


def write_yolo(root: Path, name: str) -> None:
    (root / "labels").mkdir(exist_ok=True)
    (root / f"labels/{name}.txt").write_text("0.0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    (root / "labels/classes.txt").write_text("car\n")


def write_kaggle(root: Path, name: str) -> None:
    path = root / "train.csv"
    head = path.read_text() if path.exists() else "ImageId,EncodedPixels\n"
    path.write_text(f"{head}{name}.png,33 20 65 20\n")


def write_via(root: Path, name: str) -> None:
    path = root / "via.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    shape = {"name": "rect", "x": 2, "y": 2, "width": 20, "height": 20}
    regions = [{"shape_attributes": shape, "region_attributes": {}}]
    path.write_text(json.dumps(content | {name: {"filename": f"{name}.png", "size": 1, "regions": regions}}))


def proposed(root: Path) -> dict[str, Any]:
    """The data of the config that `data init` writes, and the images that it opens, by their names."""
    assert main(["data", "init", str(root), "--out", str(root.parent / "c.yaml")]) == 0
    config = load_for_data(root.parent / "c.yaml")
    images = {}
    for dataset in open_splits(config).values():
        images |= {image.name: dataset.read_label(label) for image, label in dataset.pairs}
    return {"text": (root.parent / "c.yaml").read_text(), "images": images}


@pytest.mark.parametrize("write", [write_labelme, write_yolo, write_kaggle])
def test_most_images_without_an_object(tmp_path, write: Callable[[Path, str], None]):
    for name in "abcdef":
        add_image(tmp_path / f"data/images/{name}.png")
    write(tmp_path / "data", "a")
    write(tmp_path / "data", "b")
    found = proposed(tmp_path / "data")
    assert "unlabelled: background  # 4 images have no label" in found["text"]
    assert {name for name, label in found["images"].items() if label.any()} == {"a.png", "b.png"}
    assert len(found["images"]) == 6
    assert main(["data", "check", str(tmp_path / "c.yaml"), "--json"]) in (0, 1)


@pytest.mark.parametrize("write", [write_masks, write_labelme, write_via])
def test_a_stray_thumbnail_is_excluded(tmp_path, write: Callable[[Path, str], None]):
    for name in "abc":
        add_image(tmp_path / f"data/images/{name}.png")
        write(tmp_path / "data", name)
    add_image(tmp_path / "data/images/thumb.png", scale=4)
    found = proposed(tmp_path / "data")
    assert "exclude: [images/thumb.png]" in found["text"] and "unlabelled" not in found["text"]
    assert sorted(found["images"]) == ["a.png", "b.png", "c.png"]


def test_many_images_that_a_file_does_not_list_are_skipped(tmp_path):
    for index in range(50):
        add_image(tmp_path / f"data/images/{index}.png")
        if index < 27:
            write_via(tmp_path / "data", str(index))
    found = proposed(tmp_path / "data")
    assert "unlabelled: skip  # 23 images" in found["text"] and len(found["images"]) == 27


def test_few_masks_are_taken_and_the_rest_is_named(tmp_path):
    for name in "abcde":
        add_image(tmp_path / f"data/images/{name}.png")
    write_masks(tmp_path / "data", "a")
    write_masks(tmp_path / "data", "b")
    found = proposed(tmp_path / "data")
    assert "# Left out: 3 of 5 images, which have no label" in found["text"] and len(found["images"]) == 2


def test_names_in_gbk_with_lists_in_gbk(tmp_path):
    """As an archive made on a Chinese Windows is unpacked elsewhere."""
    names = [f"街道{index}" for index in range(4)]
    stored = [os.fsdecode(name.encode("gbk")) for name in names]
    for folder, content in (("images", street(0)[0]), ("labels", LABEL)):
        save = save_image if folder == "images" else save_label
        for index, name in enumerate(stored):
            save(tmp_path / f"data/{folder}/{index}.png", np.ascontiguousarray(content))
            (tmp_path / f"data/{folder}/{index}.png").rename(tmp_path / f"data/{folder}/{name}.png")
    add_image(tmp_path / "data/images/x.png")
    (tmp_path / "data/images/x.png").rename(tmp_path / "data/images" / (os.fsdecode("缩略图".encode("gbk")) + ".png"))
    found = proposed(tmp_path / "data")
    assert "exclude: [images/缩略图.png]" in found["text"]
    assert sorted(found["images"]) == sorted(f"{name}.png" for name in stored)
    for split, part in (("train", names[:3]), ("val", names[3:])):
        (tmp_path / f"data/{split}.txt").write_bytes("\n".join(part).encode("gbk"))
    (tmp_path / "c.yaml").unlink()
    assert len(proposed(tmp_path / "data")["images"]) == 4
    assert main(["data", "check", str(tmp_path / "c.yaml")]) == 1, "all images are the same"


def test_names_of_files_stay_in_the_comments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "odd\nload_from: evil.pth\x1b"):
        add_image(tmp_path / f"set/images/{name}.png")
    write_masks(tmp_path / "set", "a")
    write_masks(tmp_path / "set", "b")
    assert main(["data", "init", "set"]) == 0
    text = (tmp_path / "set.yaml").read_text()
    assert r"images/odd\nload_from: evil.pth\u001b.png" in text and "load_from" not in tz.load_config("set.yaml")
