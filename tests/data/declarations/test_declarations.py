"""Declared data sets: their facts, folder layouts, reading that differs, and the wrappers around them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from support.paths import GOLDEN
from terrazzo.data.build import build_dataset
from terrazzo.data.spec import dataset_spec, declare
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS

FACTS = json.loads((GOLDEN / "datasets.json").read_text())
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]


def save(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def save_pair(root: Path, image: str, label: str, value: int = 0, size=(6, 8)) -> None:
    save(root / image, np.full((*size, 3), 10 * value))
    save(root / label, np.full(size, value))


@pytest.mark.parametrize("name", sorted(FACTS["datasets"]))
def test_declares_what_was_published(name):
    golden, spec = FACTS["datasets"][name], DATASETS.get(name)
    assert list(spec.classes) == golden["classes"]
    assert [list(colour) for colour in spec.palette] == (golden["palette"] or [])
    for key, value in golden["defaults"].items():
        if key == "ignore_index":
            assert value == 255
        elif key != "ann_file":
            assert getattr(spec, key) == value, key
    assert spec.reduce_zero_label == golden["defaults"].get("reduce_zero_label", False)


@pytest.mark.parametrize("name, aliases", sorted(FACTS["aliases"].items()))
def test_is_known_by_its_short_names(name, aliases):
    assert len({dataset_spec(alias).name for alias in aliases}) == 1
    assert dataset_spec(name) is dataset_spec(aliases[0])


def test_an_unknown_alias_names_the_nearest():
    with pytest.raises(UserError, match="cityscapes"):
        dataset_spec("cityscape")


def test_a_spec_is_plain_data_and_registers_where_declare_is_called():
    changed = dataclasses.replace(dataset_spec("cityscapes"), name="OwnStreets")
    assert changed.split("val", "data")["type"] == "OwnStreets" and "OwnStreets" not in DATASETS
    with pytest.raises(UserError, match=r"'OwnStreets' at train.*terrazzo\.data\.spec\.declare"):
        DATASETS.get(changed.name, "train")
    try:
        assert declare(**vars(changed)) == DATASETS.get("OwnStreets")
        with pytest.raises(ValueError, match="registered twice"):
            declare(name="OwnStreets")
    finally:
        del DATASETS.types["OwnStreets"]


@pytest.mark.parametrize("section", FACTS["sections"], ids=lambda s: f"{s['type']}-{s['data_prefix']['img_path']}")
def test_layouts_are_those_of_the_official_configs(section):
    spec = DATASETS.get(section["type"])
    found = [spec.split(name, section["data_root"]) for name, entry in spec.layout.items() if isinstance(entry, dict)]
    assert section in [{key: value for key, value in split.items() if key != "test_mode"} for split in found]


SPECS = [name for name in DATASETS if DATASETS.get(name).layout and DATASETS.get(name).read is None]


@pytest.mark.parametrize("name", SPECS)
def test_reads_a_folder_in_its_own_layout(name, tmp_path):
    spec = DATASETS.get(name)
    split = next(iter(spec.layout))
    section = spec.split(split, tmp_path)
    prefix, first = section["data_prefix"], lambda ending: ending if isinstance(ending, str) else ending[0]
    others = {
        "seg_map_path": spec.seg_map_suffix,
        "img_path2": spec.img_suffix2,
        "depth_map_path": spec.depth_map_suffix,
    }
    for stem in ("bedroom_0001", "kitchen_2"):
        save(tmp_path / prefix["img_path"] / (stem + first(spec.img_suffix)), np.zeros((4, 6, 3)))
        for key, ending in others.items():
            if key in prefix:
                save(tmp_path / prefix[key] / (stem + first(ending)), np.ones((4, 6)))
    if "ann_file" in section:
        listed = tmp_path / section["ann_file"]
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("bedroom_0001\nkitchen_2\n")
    dataset = build_dataset(section | {"pipeline": LOAD[: 1 + ("seg_map_path" in prefix)]})
    sample = dataset[0]
    assert len(dataset) == 2 and dataset.classes == tuple(spec.classes)
    assert sample.image.shape == (4, 6, 3)
    if name not in ("LEVIRCDDataset", "NYUDataset") and not spec.label_map:
        assert (sample.label == (0 if spec.reduce_zero_label else 1)).all()


def test_an_unknown_split_names_those_that_there_are():
    with pytest.raises(UserError, match="train, val"):
        dataset_spec("ade").split("test", "data")


def test_voc_joins_its_extra_annotations():
    section = dataset_spec("voc12aug").split("trainaug", "/data/VOC2012")
    assert section["type"] == "ConcatDataset"
    assert [part["data_prefix"]["seg_map_path"] for part in section["datasets"]] == [
        "SegmentationClass",
        "SegmentationClassAug",
    ]
    assert {part["data_root"] for part in section["datasets"]} == {"/data/VOC2012"}


def test_a_choice_of_classes_is_remapped_by_name(tmp_path):
    save_pair(tmp_path, "leftImg8bit/val/x_leftImg8bit.png", "gtFine/val/x_gtFine_labelTrainIds.png", value=13)
    section = dataset_spec("cityscapes").split("val", tmp_path) | {"metainfo": {"classes": ["person", "car"]}}
    dataset = build_dataset(section | {"pipeline": LOAD})
    assert (dataset[0].label == 1).all() and dataset.palette == [[220, 20, 60], [0, 0, 142]]


def test_masks_of_0_and_255_are_read_where_the_data_set_has_them(tmp_path):
    save(tmp_path / "images/a.jpg", np.zeros((8, 8, 3)))
    save(tmp_path / "masks/a.jpg", np.pad(np.full((8, 4), 255), ((0, 0), (0, 4))))
    (tmp_path / "train.txt").write_text("a\n")
    dataset = build_dataset(dataset_spec("kvasir").split("train", tmp_path) | {"pipeline": LOAD})
    assert (dataset[0].label == np.repeat([[1] * 4 + [0] * 4], 8, axis=0)).all()


def test_the_second_image_of_a_pair(tmp_path):
    save_pair(tmp_path, "train/A/x.png", "train/label/x.png", 1)
    save(tmp_path / "train/B/x.png", np.full((6, 8, 3), 77))
    pipeline = [{"type": "LoadMultipleRSImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "ConcatCDInput"}]
    sample = build_dataset(dataset_spec("levircd").split("train", tmp_path) | {"pipeline": pipeline})[0]
    assert sample.image.shape == (6, 8, 6) and (sample.image[..., 3:] == 77).all()


def test_a_pair_without_its_second_image_is_named(tmp_path):
    save_pair(tmp_path, "train/A/x.png", "train/label/x.png", 1)
    (tmp_path / "train/B").mkdir()
    with pytest.raises(UserError, match=r"x\.png"):
        build_dataset(dataset_spec("levircd").split("train", tmp_path))


def test_depth_and_the_kind_of_room(tmp_path):
    save(tmp_path / "images/train/home_office_0001_rgb_00010.jpg", np.zeros((6, 8, 3)))
    depth = np.full((6, 8), 2500, np.uint16)
    (tmp_path / "annotations/train").mkdir(parents=True)
    Image.fromarray(depth).save(tmp_path / "annotations/train/home_office_0001_rgb_00010.png")
    pipeline = [LOAD[0], {"type": "LoadDepthAnnotation", "depth_rescale_factor": 1e-3}]
    sample = build_dataset(dataset_spec("nyu").split("train", tmp_path) | {"pipeline": pipeline})[0]
    assert sample.targets["depth"].array == pytest.approx(2.5)
    assert sample.meta["category_id"] == dataset_spec("nyu").classes.index("home_office")


def decathlon(root: Path) -> Path:
    for name in ("imagesTr/heart_1.nii.gz", "labelsTr/heart_1.nii.gz", "imagesTs/heart_2.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    index = {
        "labels": {"0": "background", "1": "left atrium"},
        "training": [
            {"image": "./imagesTr/heart_1.nii.gz", "label": "./labelsTr/heart_1.nii.gz"},
            {"image": "./imagesTr/._heart_1.nii.gz", "label": "./labelsTr/._heart_1.nii.gz"},
        ],
        "test": ["./imagesTs/heart_2.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(index))
    return root


def test_decathlon_is_listed_in_its_json(tmp_path):
    spec = dataset_spec("decathlon")
    train = build_dataset(spec.split("train", decathlon(tmp_path)))
    assert train.classes == ("background", "left atrium")
    assert train.pairs == [(tmp_path / "imagesTr/heart_1.nii.gz", tmp_path / "labelsTr/heart_1.nii.gz")]
    assert build_dataset(spec.split("test", tmp_path)).pairs == [(tmp_path / "imagesTs/heart_2.nii.gz", None)]


def test_decathlon_names_a_volume_that_is_missing(tmp_path):
    (decathlon(tmp_path) / "labelsTr/heart_1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"labelsTr/heart_1\.nii\.gz"):
        build_dataset(dataset_spec("decathlon").split("train", tmp_path))


def dsdl(root: Path) -> Path:
    definitions, split = root / "dsdl/defs", root / "dsdl/set-train"
    definitions.mkdir(parents=True)
    split.mkdir()
    struct = {"$def": "struct", "$params": ["cdom"], "$fields": {"image": "Image", "map": "LabelMap[dom=$cdom]"}}
    (definitions / "segmentation.yaml").write_text(yaml.safe_dump({"SegSample": struct}))
    domain = {"$def": "class_domain", "classes": ["sky", "road", "car"]}
    (definitions / "class-dom.yaml").write_text(yaml.safe_dump({"StreetDom": domain}))
    content = {
        "$dsdl-version": "0.5.3",
        "$import": ["../defs/segmentation", "../defs/class-dom"],
        "data": {"sample-type": "SegSample[cdom=StreetDom]", "sample-path": "train_samples.json"},
    }
    (split / "train.yaml").write_text(yaml.safe_dump(content))
    (split / "train_samples.json").write_text(json.dumps({"samples": [{"image": "img/a.png", "map": "map/a.png"}]}))
    save_pair(root / "raw", "img/a.png", "map/a.png", value=3)
    return root


@pytest.mark.parametrize(
    "used, classes, value", [((), ("background", "sky", "road", "car"), 3), (("car", "road"), ("car", "road"), 0)]
)
def test_dsdl_descriptions(tmp_path, used, classes, value):
    section = {
        "type": "DSDLSegDataset",
        "data_root": str(dsdl(tmp_path)),
        "data_prefix": {"img_path": "raw", "seg_map_path": "raw"},
        "ann_file": "dsdl/set-train/train.yaml",
        "used_labels": used,
        "pipeline": LOAD,
    }
    dataset = build_dataset(section)
    assert dataset.classes == classes
    assert (dataset[0].label == value).all()


def test_dsdl_without_its_class_domain_is_named(tmp_path):
    (dsdl(tmp_path) / "dsdl/defs/class-dom.yaml").unlink()
    section = {"type": "DSDLSegDataset", "data_root": str(tmp_path), "ann_file": "dsdl/set-train/train.yaml"}
    with pytest.raises(UserError, match="StreetDom"):
        build_dataset(section)


@pytest.fixture
def folder(tmp_path):
    """Ten images of class 0, one of which shows class 1 too."""
    for index in range(10):
        save_pair(tmp_path, f"images/{index}.png", f"labels/{index}.png", size=(20, 30))
    save(tmp_path / "labels/3.png", np.eye(20, 30))
    return {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "metainfo": {"classes": ["ground", "thing"]},
        "pipeline": LOAD,
    }


def shown(dataset) -> Counter:
    return Counter(dataset[0, index].image_path.name for index in range(len(dataset)))


def test_concat_and_repeat(folder):
    both = {"type": "ConcatDataset", "datasets": [folder, folder | {"indices": [3]}]}
    dataset = build_dataset({"type": "RepeatDataset", "times": 2, "dataset": both})
    assert len(dataset) == 22 and len(dataset.leaves()) == 2
    assert shown(dataset)["3.png"] == 4


def test_class_balanced_repeats_images_of_rare_classes(folder):
    dataset = build_dataset({"type": "ClassBalancedDataset", "oversample_thr": 0.9, "dataset": folder})
    assert shown(dataset) == Counter({f"{index}.png": 3 if index == 3 else 1 for index in range(10)})  # sqrt(0.9 / 0.1)


def test_class_balanced_counts_through_other_wrappers(folder):
    inner = {"type": "RepeatDataset", "times": 2, "dataset": folder}
    dataset = build_dataset({"type": "ClassBalancedDataset", "oversample_thr": 0.9, "dataset": inner})
    assert shown(dataset)["3.png"] == 6 and len(dataset) == 24


@pytest.mark.parametrize("prob, size", [(1.0, (40, 60)), (0.0, (20, 30))])
def test_multi_image_mix_feeds_the_mosaic(folder, prob, size):
    mosaic = {"type": "RandomMosaic", "prob": prob, "img_scale": (20, 30)}
    section = {"type": "MultiImageMixDataset", "dataset": folder, "pipeline": [mosaic, {"type": "PackSegInputs"}]}
    dataset = build_dataset(section, seed=3)
    sample = dataset[1, 4]
    assert sample.image.shape[:2] == size and sample.label.shape == size
    assert np.array_equal(sample.image, build_dataset(section, seed=3)[1, 4].image)


def test_multi_image_mix_skips_what_it_is_told_to(folder):
    mosaic = {"type": "RandomMosaic", "prob": 1.0, "img_scale": (20, 30)}
    section = {"type": "MultiImageMixDataset", "dataset": folder, "pipeline": [mosaic]}
    dataset = build_dataset(section | {"skip_type_keys": ["RandomMosaic"]})
    assert dataset[0].image.shape[:2] == (20, 30)


def test_a_broken_partner_is_named(folder, tmp_path):
    for path in tmp_path.glob("images/*.png"):
        if path.name != "4.png":
            path.write_bytes(b"broken")
    mosaic = {"type": "RandomMosaic", "prob": 1.0, "img_scale": (20, 30)}
    dataset = build_dataset({"type": "MultiImageMixDataset", "dataset": folder, "pipeline": [mosaic]})
    assert "cannot decode" in dataset[4].message


def test_a_wrapper_with_an_unknown_argument(folder):
    with pytest.raises(UserError, match="oversample_thr"):
        build_dataset({"type": "ClassBalancedDataset", "oversample_threshold": 0.9, "dataset": folder})
