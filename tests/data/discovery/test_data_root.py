"""`--data-root`: recipes and configs on data that lie elsewhere, in whatever layout."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from support.tiny import CLASSES, COLOURS, make_streets, save_image, save_label, street
from terrazzo.cli.main import main
from terrazzo.data.build import build_dataset
from terrazzo.data.discovery.data_root import data_sets, locate
from terrazzo.errors import UserError
from terrazzo.training.train import run_name

PSPNET = "pspnet_r18-d8_2xb4-40k_cityscapes-32x32"
OWN = "pspnet_r18-d8_2xb4-40k_myset-32x32"


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = make_streets(tmp_path_factory.mktemp("streets"))
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def moved(name, root, **overrides):
    return locate(tz.load_config(name, overrides), root)


def set_of(config, name="train"):
    return next(data_sets(config[f"{name}_dataloader"]))


@pytest.mark.parametrize(
    "name", [OWN, PSPNET, "mask2former_r50_2xb4-40k_ade20k-32x32", "pspnet_r50-d8_512x512_40k_voc12aug"]
)
def test_a_recipe_takes_folders_of_images_and_labels(name, streets):
    config = moved(name, streets)
    for split in ("train", "val"):
        section = set_of(config, split)
        assert section["type"] == "BaseSegDataset" and section["data_root"] == str(streets)
        assert section["data_prefix"] == {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"}
        assert section["metainfo"] == {"classes": CLASSES}
        assert not any(step.get("reduce_zero_label") for step in section["pipeline"])
    assert config.model.decode_head.num_classes == 3
    weights = config.model.decode_head.get("loss_cls", {}).get("class_weight")
    assert weights in (None, [1.0, 1.0, 1.0, 0.1])


def test_a_data_set_in_its_own_layout_keeps_its_declaration(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "leftImg8bit" / split).mkdir(parents=True)
    config = moved(PSPNET, tmp_path)
    assert set_of(config)["type"] == "CityscapesDataset" and set_of(config)["data_root"] == str(tmp_path)
    assert config.model.decode_head.num_classes == 19


def test_lists_name_the_samples_of_a_split(tmp_path):
    for split in ("train", "val"):
        image, label = street(0)
        save_image(tmp_path / "images" / f"{split}.png", image)
        save_label(tmp_path / "masks" / f"{split}.png", label)
        (tmp_path / f"{split}.txt").write_text(split)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    section = set_of(moved(PSPNET, tmp_path), "val")
    assert section["ann_file"] == "val.txt"
    assert section["data_prefix"] == {"img_path": "images", "seg_map_path": "masks"}


def test_a_fifth_of_one_folder_is_held_out(tmp_path):
    for index in range(10):
        image, label = street(index)
        save_image(tmp_path / "images" / f"{index}.png", image)
        save_label(tmp_path / "masks" / f"{index}.png", label)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    with pytest.warns(UserWarning, match="20% of the images are held out"):
        config = moved(PSPNET, tmp_path)
    parts = {split: build_dataset(set_of(config, split)).pairs for split in ("train", "val", "test")}
    assert len(parts["train"]) == 8 and len(parts["val"]) == 2 and parts["val"] == parts["test"]
    assert not set(parts["train"]) & set(parts["val"])


def test_without_names_the_labels_tell_how_many_classes_there_are(tmp_path):
    root = make_streets(tmp_path, train=2, val=1)
    with pytest.warns(UserWarning, match=r"no classes\.txt: 3 classes by what the labels hold"):
        assert set_of(moved(OWN, root))["metainfo"] == {"classes": ["class_0", "class_1", "class_2"]}


def test_masks_of_0_and_255_are_two_classes(tmp_path):
    for split in ("train", "val"):
        image, label = street(0)
        save_image(tmp_path / "images" / split / "a.png", image)
        save_label(tmp_path / "labels" / split / "a.png", (label == 2).astype(np.uint8) * 255)
    with pytest.warns(UserWarning, match="2 classes"):
        section = set_of(moved(OWN, tmp_path))
    assert section["label_map"] == {255: 1} and section["metainfo"] == {"classes": ["background", "foreground"]}


def test_values_without_a_name_are_ignored(tmp_path):
    root = make_streets(tmp_path, train=2, val=1)
    (root / "classes.txt").write_text("sky\nroad\n")
    section = set_of(moved(OWN, root))
    assert section["metainfo"] == {"classes": ["sky", "road"]} and section["ignore"] == [2]


def test_masks_of_colours(tmp_path):
    for split in ("train", "val"):
        image, label = street(0)
        save_image(tmp_path / "images" / split / "a.png", image)
        save_image(tmp_path / "labels" / split / "a.png", COLOURS[label])
    (tmp_path / "labelmap.txt").write_text(
        "".join(f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(CLASSES, COLOURS, strict=True))
    )
    config = moved(OWN, tmp_path)
    assert set_of(config)["metainfo"]["classes"] == CLASSES and config.model.decode_head.num_classes == 3
    assert build_dataset(set_of(config)).check_label(tmp_path / "labels" / "train" / "a.png").min() > 0


def test_as_many_values_as_the_named_data_set_has_classes_are_these(tmp_path):
    root = make_streets(tmp_path, train=1, val=1)
    for split in ("train", "val"):
        save_label(root / "labels" / split / "00.png", np.eye(32, 40, dtype=np.uint8))
    section = set_of(moved("unet-s5-d16_fcn_1xb4-40k_drive-32x32", root))
    assert section["metainfo"]["classes"] == ["background", "vessel"] and len(section["metainfo"]["palette"]) == 2


def test_classes_may_be_given_as_a_config_key(tmp_path):
    root = make_streets(tmp_path, train=2, val=1)
    names = {"train_dataloader.dataset.metainfo.classes": CLASSES}
    assert set_of(locate(tz.load_config(OWN, names), root), "val")["metainfo"] == {"classes": CLASSES}


@pytest.mark.parametrize(
    ("name", "folders", "message"),
    [
        (OWN, None, "give the folder of the data with --data-root"),
        (OWN, (), "holds no image"),
        (OWN, ("pictures",), "which files are images and which are labels"),
        (PSPNET, ("images",), r"which files are images.* Looked for images/ and labels/"),
        (
            PSPNET,
            ("images/test", "labels/test"),
            "no train split: found images/test and labels/test, which is test data",
        ),
        (OWN, "missing", "--data-root: there is no folder"),
    ],
)
def test_what_is_missing_is_named(name, folders, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in folders or () if folders != "missing" else ():
        save_label(tmp_path / folder / "a.png", np.ones((4, 4), np.uint8))
    with pytest.raises(UserError, match=message):
        moved(name, None if folders is None else tmp_path / ("x" if folders == "missing" else ""))


def test_testing_needs_no_training_data_and_takes_the_test_set_before_the_validation_data(tmp_path):
    expected = {}
    for split in ("val", "test"):
        image, label = street(0)
        save_image(tmp_path / "images" / split / f"{split}.png", image)
        save_label(tmp_path / "labels" / split / f"{split}.png", label)
        (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
        section = set_of(locate(tz.load_config(PSPNET), tmp_path, ("test",)), "test")
        expected[split] = [image.name for image, _ in build_dataset(section).pairs]
    assert expected == {"val": ["val.png"], "test": ["test.png"]}


def test_a_file_without_data_root_stays_as_it_is():
    config = tz.load_config({"model": {}, "train_dataloader": {"dataset": {"type": "BaseSegDataset"}}})
    assert locate(config, None) is config


def test_training_and_testing_by_recipe_name(streets, tmp_path, capsys):
    name = "fast_scnn_1xb2-1k_streets-32x32"
    changes = ["train_cfg.max_iters=2", "train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    common = ["--data-root", str(streets), "--device", "cpu"]
    call = [
        "train",
        name,
        *common,
        "--work-dir",
        str(tmp_path / "w"),
        "--pretrained",
        "none",
        "--cfg-options",
        *changes,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(call) == 0
        assert "3 classes: sky, road, car" in capsys.readouterr().out
        weights = str(tmp_path / "w" / "last.safetensors")
        assert main(["test", name, weights, *common, "--cfg-options", "test_dataloader.num_workers=0"]) == 0
    assert "car" in capsys.readouterr().out


def test_an_error_about_the_data_is_in_the_log(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    assert main(["train", OWN, "--data-root", str(tmp_path / "pictures"), "--work-dir", str(tmp_path / "w")]) == 1
    message = capsys.readouterr().err
    assert message.splitlines()[-1].removeprefix("error: ") in (tmp_path / "w" / "log.txt").read_text()


def test_a_config_in_memory_has_a_work_dir_of_its_recipes_name():
    assert run_name(tz.load_config(PSPNET)) == run_name(PSPNET) == PSPNET
    dotted = "unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64"
    assert run_name(dotted) == run_name(tz.load_config(dotted)) == dotted
    assert run_name("configs/a.b.py") == "a.b" and run_name({"model": {}}) == "run"
