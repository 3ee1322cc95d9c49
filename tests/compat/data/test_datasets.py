"""Users' data sets and transforms, and the official ones as they are called and extended there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from terrazzo.config.evaluators import EvaluatorSettings
from terrazzo.data.build import build_dataset
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import make_evaluator

PAIRS = """
import mmcv
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.model import BaseDataPreprocessor
from mmcv.transforms import BaseTransform
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import DATASETS, MODELS, TRANSFORMS


@DATASETS.register_module()
class PairDataset(BaseDataset):
    METAINFO = dict(classes=("sky", "wall", "road"), palette=[[0, 0, 0], [9, 9, 9], [64, 0, 64]])

    def __init__(self, data_root, data_prefix, pipeline, test_mode=False):
        self.data_root, self.data_prefix, self.test_mode = data_root, dict(data_prefix), test_mode
        self._metainfo = self._load_metainfo(None)
        self.label_map, self.reduce_zero_label = None, False
        self._join_prefix()
        self.pipeline = Compose(pipeline)
        self.full_init()

    def load_data_list(self):
        folder = self.data_prefix["img_path"]
        names = [f"{folder}/{index}_photo.png" for index in range(3)]
        return [dict(img_path=[name, name], seg_map_path=name.replace("photo", "classes")) for name in names]


@TRANSFORMS.register_module()
class LoadPair(BaseTransform):
    def transform(self, results):
        first, second = map(mmcv.imread, results["img_path"])
        results.update(img=[first, second[:, ::-1]], img_shape=first.shape[:2], ori_shape=first.shape[:2])
        return results


@MODELS.register_module()
class PairPreprocessor(BaseDataPreprocessor):
    def forward(self, data, training=False):
        assert len(data["inputs"]) == 1 or training
        images = torch.stack(data["inputs"]).float() / 255
        return dict(inputs=images, data_samples=data["data_samples"])


@MODELS.register_module()
class PairSegmentor(EncoderDecoder):
    def extract_feat(self, inputs):
        return self.backbone(sum(torch.split(inputs, 3, dim=1)))
"""
PAIRS_CONFIG = """
model = dict(type="PairSegmentor", data_preprocessor=dict(type="PairPreprocessor"),
    backbone=dict(type="UNet", base_channels=8, num_stages=1, strides=(1,), enc_num_convs=(1,), dec_num_convs=(),
                  downsamples=(), enc_dilations=(1,), dec_dilations=(), norm_cfg=dict(type="BN")),
    decode_head=dict(type="FCNHead", in_channels=8, channels=8, num_classes=3, num_convs=1, in_index=0))
data = dict(type="PairDataset", data_root={root!r}, data_prefix=dict(img_path="train"))
steps = [dict(type="LoadPair"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(**data, pipeline=steps))
val_dataloader = test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(**data, pipeline=steps))
val_evaluator = test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg, test_cfg = dict(type="ValLoop"), dict(type="TestLoop")
"""


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


@pytest.mark.parametrize("test_mode", [False, True])
def test_a_copy_of_the_base_of_older_releases(older, photos, test_mode):
    from mmseg.datasets import PIPELINES

    @PIPELINES.register_module()
    class Seen:
        def __call__(self, results):
            assert results["own"] == "mine"
            results["img"][:] = 7
            return results

    data = build_dataset(section("CopiedDataset", photos, steps=[{"type": "Seen"}], test_mode=test_mode))
    assert len(data) == 3 and data.classes == ("sky", "wall", "road") and data.palette[2] == [64, 0, 64]
    sample = data[1]
    assert (sample.image == 7).all() and set(np.unique(sample.label)) == {1, 2, 255}
    assert sample.label_path.name == "1_classes.png"


def test_a_data_set_must_say_what_its_images_are(photos):
    from mmseg.datasets import DATASETS

    @DATASETS.register_module()
    class Silent:
        def __init__(self, data_root, pipeline):
            self.root = data_root

    with pytest.raises(UserError, match="Silent has neither data_list nor img_infos: inherit from BaseSegDataset"):
        build_dataset(section("Silent", photos))


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


def test_pairs_of_images_are_trained_on(photos, tmp_path):
    """Two dates of each place: a data set that goes around the constructor, with its own step and preprocessor."""
    import terrazzo as tz

    (tmp_path / "pairs.py").write_text(PAIRS)
    config = tmp_path / "configs/pairs.py"
    config.parent.mkdir()
    config.write_text(PAIRS_CONFIG.format(root=str(photos / "data")))
    settings = tz.load_config(config, trust=True)
    data = build_dataset(settings.to_dict()["train_dataloader"]["dataset"])
    sample = data[0]
    assert len(data) == 3 and sample.image.shape == (48, 64, 6) and sample.original_size == (48, 64)
    assert np.array_equal(sample.image[..., 3:], sample.image[:, ::-1, :3])  # the second one is turned
    run = tz.train(settings, work_dir=tmp_path / "run", check=False)
    assert run.last.exists() and "mIoU" in run.metrics


def test_a_data_set_without_images_is_an_error(older, photos):
    with pytest.raises(UserError, match="OldDataset finds no images"):
        build_dataset(section("OldDataset", photos / "nowhere"))


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


def test_a_metric_knows_the_colours_of_the_classes(newer, photos):
    from mmseg.evaluation.metrics import IoUMetric
    from mmseg.registry import METRICS

    @METRICS.register_module()
    class Redness(IoUMetric):
        def process(self, data_batch, data_samples):
            for sample in data_samples:
                red = np.array(self.dataset_meta["palette"])[:, 0]
                self.results.append(red[sample["pred_sem_seg"]["data"].numpy()].mean())

        def compute_metrics(self, results):
            return {"red": np.mean(results)}

    def red(data):
        evaluator = make_evaluator(SimpleNamespace(target="label"), EvaluatorSettings(({"type": "Redness"},)), data)
        evaluator.update(torch.tensor([[1, 1]]), torch.tensor([[1, 0]]), list)
        return evaluator.compute()["red"]

    assert red(build_dataset(section("NewDataset", photos))) == 128
    names = {"classes": ("sky", "wall"), "palette": [[9, 9, 9], [70, 80, 90]]}
    assert red(build_dataset(section("NewDataset", photos, metainfo=names))) == 70


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


def test_a_data_set_of_0x_scores_class_maps(photos):
    from mmseg.datasets import CustomDataset

    class Places(CustomDataset):
        CLASSES = ("sky", "wall", "road")
        PALETTE: ClassVar = [[0, 0, 0], [9, 9, 9], [64, 0, 64]]

        def get_gt_seg_map_by_idx(self, index):  # as projects write it
            results = {"ann_info": self.get_ann_info(index)}
            self.pre_pipeline(results)
            self.gt_seg_map_loader(results)
            return results["gt_semantic_seg"]

    folder = str(photos / "data/train")
    data = Places(pipeline=[], img_dir=folder, ann_dir=folder, img_suffix="_photo.png", seg_map_suffix="_classes.png")
    maps = [*data.get_gt_seg_maps()]
    scores = data.evaluate(data.pre_eval(maps, [0, 1, 2]))
    assert [*scores][:4] == ["aAcc", "mIoU", "mAcc", "IoU.sky"] and scores["mIoU"] == 1.0
    wrong = [np.zeros_like(label) for label in maps]
    assert data.evaluate(wrong, metric=["mIoU"])["Acc.sky"] == 1.0
    assert data.evaluate(wrong, gt_seg_maps=maps)["aAcc"] == round(1 / 3, 4)
    assert data.get_palette_for_custom_classes(["sky"]) == Places.PALETTE
    assert data.get_classes_and_palette(["road", "sky"]) == (["road", "sky"], [[64, 0, 64], [0, 0, 0]])


def test_the_labels_of_a_data_set_of_0x_are_reduced_once(photos):
    from mmseg.datasets import CustomDataset

    folder = str(photos / "data/train")
    data = CustomDataset(pipeline=[], img_dir=folder, ann_dir=folder, img_suffix="_photo.png",
                         seg_map_suffix="_classes.png", classes=("wall", "road"), reduce_zero_label=True)  # fmt: skip
    stored = data.get_gt_seg_map_by_idx(0)
    assert set(np.unique(stored)) == {0, 1, 2}
    assert data.evaluate(data.pre_eval(stored.astype(int) - 1, 0))["mIoU"] == 1.0
