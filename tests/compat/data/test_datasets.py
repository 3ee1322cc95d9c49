"""Users' data sets and transforms, and the official ones as they are called and extended there."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from terrazzo.data.build import build_dataset


def section(kind, root, **more):
    prefix = {"img_path": "train", "seg_map_path": "train"}
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        *more.pop("steps", []),
        {"type": "PackSegInputs"},
    ]
    return {"type": kind, "data_root": str(root / "data"), "data_prefix": prefix, "pipeline": steps, **more}


def test_an_older_data_set_and_its_transform(older, photos):
    steps = [{"type": "OldTransform", "value": 200}]
    data = build_dataset(section("OldDataset", photos, steps=steps))
    assert len(data) == 3 and data.classes == ("sky", "wall", "road") and data.palette[2] == [64, 0, 64]
    sample = data[0]
    assert (sample.image[..., 2] == 200).all()  # the results are BGR, samples RGB
    assert sample.label.shape == (48, 64) and set(np.unique(sample.label)) == {0, 1, 2}


def test_a_newer_data_set_takes_its_own_arguments(newer, photos):
    data = build_dataset(section("NewDataset", photos, skip=1, steps=[{"type": "NewTransform", "value": 7}]))
    assert len(data) == 2 and data.classes == ("sky", "wall", "road")
    sample = data[0]
    assert (sample.image[..., 0] == 7).all() and set(np.unique(sample.label)) == {1, 2, 255}


def test_the_own_evaluation_of_a_data_set_is_named(older, photos):
    from mmseg.datasets import DATASETS

    class Scored(older.OldDataset):
        def evaluate(self, results, **kwargs):
            return {}

    DATASETS.register_module(module=Scored)
    with pytest.warns(UserWarning, match="Scored: terrazzo does not call evaluate; register a metric"):
        build_dataset(section("Scored", photos))


def test_random_transforms_depend_on_our_seed(older, photos):
    steps = [{"type": "OldTransform", "value": 200, "prob": 0.5}]
    made = [build_dataset(section("OldDataset", photos, steps=steps), seed=seed) for seed in (1, 1, 2)]
    images = [np.stack([data[epoch, index].image for epoch in range(4) for index in range(3)]) for data in made]
    assert (images[0] == images[1]).all() and (images[0] != images[2]).any()


def test_a_data_set_that_makes_its_items(photos):
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    @DATASETS.register_module()
    class Darker(BaseSegDataset):
        METAINFO: ClassVar = {"classes": ("sky", "wall", "road"), "palette": [[0] * 3, [1] * 3, [2] * 3]}

        def __init__(self, **kwargs):
            super().__init__(img_suffix="_photo.png", seg_map_suffix="_classes.png", **kwargs)

        def __getitem__(self, index):
            item = super().__getitem__(index)
            item.image = item.image // 2
            return item

    data = build_dataset(section("Darker", photos))
    plain = build_dataset(section("BaseSegDataset", photos, img_suffix="_photo.png", seg_map_suffix="_classes.png"))
    assert (data[0].image == plain[0].image // 2).all() and (data[0].label == plain[0].label).all()


def test_official_transforms_change_plain_dicts():
    from mmseg.datasets.transforms import Normalize, RandomCrop

    image, label = np.full((20, 30, 3), 7, np.uint8), np.zeros((20, 30), np.uint8)
    results = RandomCrop(crop_size=(8, 9))({"img": image, "gt_semantic_seg": label, "img_shape": (20, 30, 3)})
    assert results["img"].shape == (8, 9, 3) and results["gt_semantic_seg"].shape == (8, 9)
    assert results["img_shape"] == (8, 9)
    results = Normalize(mean=[1, 2, 3], std=[2, 2, 2])({"img": image})
    assert results["img"][0, 0].tolist() == [3, 2.5, 2]
    assert repr(Normalize([0.0], [1.0])).startswith("Normalize(mean=")


def test_data_sets_around_data_sets(photos):
    from mmseg.datasets import BaseSegDataset, ConcatDataset, RepeatDataset

    prefix = {"img_path": "train", "seg_map_path": "train"}
    one = BaseSegDataset(data_root=str(photos / "data"), data_prefix=prefix, img_suffix="_photo.png",
                         seg_map_suffix="_classes.png", metainfo={"classes": ("a", "b", "c")})  # fmt: skip
    both = ConcatDataset([one, RepeatDataset(one, times=2)])
    assert len(both) == 9 and both.metainfo["classes"] == ("a", "b", "c")
    assert both[4]["img_path"] == one[1]["img_path"]


def test_older_functions_score_class_maps():
    from mmseg.core.evaluation import eval_metrics, intersect_and_union, mean_dice, pre_eval_to_metrics

    label, predicted = np.array([[1, 2, 2], [0, 1, 9]]), np.array([[0, 1, 0], [1, 1, 1]])
    options = {"num_classes": 2, "ignore_index": 255, "label_map": {9: 2}, "reduce_zero_label": True}
    areas = intersect_and_union(predicted, label, **options)  # 0 becomes 255, 1 and 2 become 0 and 1
    assert [area.tolist() for area in areas] == [[1, 2], [3, 4], [2, 3], [2, 3]]
    scores = eval_metrics([predicted], [label], metrics=["mIoU", "mDice"], **options)
    assert [*scores] == ["aAcc", "IoU", "Acc", "Dice"]
    np.testing.assert_allclose(scores["IoU"], [1 / 3, 2 / 4])
    np.testing.assert_allclose(pre_eval_to_metrics([areas, areas])["IoU"], scores["IoU"])
    np.testing.assert_allclose(mean_dice([predicted], [label], **options)["Dice"], scores["Dice"])


def test_steps_of_0x_pack_a_dict_for_a_batch():
    from mmseg.datasets.pipelines import Collect, DefaultFormatBundle, ImageToTensor, ToDataContainer, Transpose

    def results():
        return {"img": np.zeros((4, 5, 3), np.float32), "gt_semantic_seg": np.ones((4, 5), np.uint8), "flip": True}

    item = Collect(keys=["img", "gt_semantic_seg"])(DefaultFormatBundle()(results()))
    assert item["img"].data.shape == (3, 4, 5) and item["img"].stack
    assert item["gt_semantic_seg"].data.shape == (1, 4, 5) and item["img_metas"].data == {"flip": True}
    assert ImageToTensor(["img"])(results())["img"].shape == (3, 4, 5)
    assert Transpose(["img"], order=[2, 0, 1])(results())["img"].shape == (3, 4, 5)
    assert ToDataContainer(fields=[{"key": "img", "stack": True}])(results())["img"].stack
