"""Official transforms as subclasses extend them: inner methods, arguments of both vocabularies, facts in `results`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest


def results(**more):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (37, 53, 3), np.uint8)
    return {"img": image, "gt_seg_map": image[..., 0] % 5, "seg_fields": ["gt_seg_map"], **more}


def older_results(**more):
    made = results(**more)
    return made | {"gt_semantic_seg": made.pop("gt_seg_map"), "seg_fields": ["gt_semantic_seg"]}


def test_a_method_that_a_subclass_overrides_is_called():
    from mmseg.datasets.transforms import RandomFlip

    class FlipDepth(RandomFlip):
        def _flip(self, results):
            super()._flip(results)
            results["depth"] = results["depth"][:, ::-1]

    before = results(depth=np.arange(53)[None].repeat(37, 0))
    after = FlipDepth(prob=1.0)(dict(before))
    assert after["flip"] and after["flip_direction"] == "horizontal"
    assert all(np.array_equal(after[key], before[key][:, ::-1]) for key in ("img", "gt_seg_map", "depth"))


OVERRIDES = {
    "RandomFlip _flip_on_direction _choose_direction _flip _flip_seg_map": {"prob": 1.0},
    "Resize _resize_img _resize_bboxes _resize_seg _resize_keypoints": {"scale": (100, 50), "keep_ratio": True},
    "RandomResize _random_scale _random_sample_ratio": {"scale": (100, 50), "ratio_range": (0.5, 2.0)},
    "RandomResize _random_scale _random_sample": {"scale": [(100, 50), (200, 100)]},
    "RandomChoiceResize _random_select": {"scales": [(100, 50), (200, 100)]},
    "RandomCrop crop_bbox crop crop": {"crop_size": (20, 22)},
    "RandomCrop crop_bbox crop crop crop": {"crop_size": (20, 22), "cat_max_ratio": 0.75},
    "Pad _pad_img _pad_seg": {"size": (64, 60)},
    "RandomRotate generate_degree": {"prob": 1.0, "degree": 10},
    "RandomCutOut generate_patches do_cutout": {"prob": 1.0, "n_holes": 2, "cutout_shape": (4, 4)},
    "0.x RandomCrop get_crop_bbox crop crop": {"crop_size": (20, 22)},
    "0.x RandomCrop get_crop_bbox crop crop crop": {"crop_size": (20, 22), "cat_max_ratio": 0.75},
}


def spying(official, names, called):
    """A subclass that notes which of its methods are called."""

    def note(name):
        def method(self, *args, **kwargs):
            called.append(name)
            return getattr(super(made, self), name)(*args, **kwargs)

        return method

    made = type("Spy", (official,), {name: note(name) for name in names} | {"__module__": __name__})
    return made


@pytest.mark.parametrize("case", OVERRIDES)
def test_every_method_is_called_in_its_turn(case):
    import mmcv.transforms
    import mmseg.datasets.pipelines

    older, *expected = case.removeprefix("0.x ").split()
    module = mmseg.datasets.pipelines if case.startswith("0.x") else mmcv.transforms
    called: list[str] = []
    transform = spying(getattr(module, older), {*expected}, called)(**OVERRIDES[case])
    changed = transform((older_results if case.startswith("0.x") else results)())
    assert called == expected
    label = changed["gt_semantic_seg" if case.startswith("0.x") else "gt_seg_map"]
    assert changed["img"].shape[:2] == label.shape


def test_colours_are_changed_by_the_methods_of_a_subclass():
    from mmseg.datasets.transforms import PhotoMetricDistortion

    class Black(PhotoMetricDistortion):
        def brightness(self, img):
            return self.convert(img, alpha=0)

    assert not Black()(results())["img"].any()
    assert (Black().contrast_lower, Black().saturation_upper) == (0.5, 1.5)
    pixel = np.array([[[250, 10, 30]]], np.uint8)
    assert Black().convert(pixel, alpha=1.7, beta=-20.5).tolist() == [[[255, 0, 30]]]
    called: list[str] = []
    names = ("brightness", "contrast", "saturation", "hue")
    spying(PhotoMetricDistortion, names, called)()(results())
    assert called[0] == "brightness" and sorted(called) == sorted(names)


def test_inner_methods_and_attributes_are_there():
    from mmseg.datasets.transforms import Pad, RandomCrop, RandomCutOut, RandomResize, RandomRotate, Resize

    assert RandomCrop(crop_size=5).crop(np.arange(12).reshape(3, 4), (0, 2, 1, 3)).tolist() == [[1, 2], [5, 6]]
    assert RandomRotate(prob=1.0, degree=10).degree == (-10, 10)
    assert RandomCutOut(prob=1.0, n_holes=2, cutout_shape=(3, 4)).candidates == [(3, 4)]
    assert Pad(size=(64, 60), pad_val=3).pad_val == {"img": 3, "seg": 255}
    resize = RandomResize(scale=(100, 50), ratio_range=(0.5, 2.0), keep_ratio=True)
    assert resize.resize_cfg == {"type": "Resize", "keep_ratio": True} and isinstance(resize.resize, Resize)


def test_a_class_may_go_around_the_constructor_and_change_attributes():
    from mmseg.datasets.transforms import RandomCrop, RandomFlip

    class Upside(RandomFlip):
        def __init__(self):
            self.prob, self.direction, self.swap_seg_labels = 1.0, "vertical", None

    before = results()
    assert np.array_equal(Upside()(dict(before))["img"], before["img"][::-1])
    crop = RandomCrop(crop_size=(9, 9))
    crop.crop_size = (5, 6)
    assert crop(results())["img"].shape == (5, 6, 3)


def test_a_resize_by_a_transform_of_ones_own():
    from mmseg.datasets.transforms import RandomResize, Resize
    from mmseg.registry import TRANSFORMS

    @TRANSFORMS.register_module()
    class SquareResize(Resize):
        def _resize_img(self, results):
            results["scale"] = (max(results["scale"]),) * 2
            super()._resize_img(results)

    made = RandomResize(scale=(40, 20), ratio_range=(1.0, 1.0), resize_type="SquareResize")(results())
    assert made["img"].shape == (40, 40, 3) and made["gt_seg_map"].shape == (40, 40)


def test_a_method_that_nothing_calls_is_named():
    from mmseg.datasets.transforms import CenterCrop, RandomFlip

    class Boxes(RandomFlip):
        def _flip_bbox(self, bboxes, img_shape, direction):
            return bboxes

    with pytest.warns(UserWarning, match="Boxes: terrazzo's RandomFlip does not call _flip_bbox"):
        Boxes(prob=1.0)

    class Called(CenterCrop):
        def _crop_img(self, results, bboxes):
            return results

        def transform(self, results):
            return self._crop_img(results, None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Called(crop_size=(8, 8))


# The vocabulary of 0.x


def test_a_resize_of_0x_has_its_arguments_and_defaults():
    from mmseg.datasets.pipelines import Resize

    def shapes(times=1, **options):
        return {Resize(**options)(older_results())["img"].shape[:2] for _ in range(times)}

    assert shapes(img_scale=(100, 50)) == {(50, 72)}  # the ratio is kept
    assert shapes(img_scale=(100, 50), keep_ratio=False) == {(50, 100)}
    assert len(shapes(20, img_scale=(100, 50), ratio_range=(0.5, 2.0))) > 1
    assert len(shapes(20, ratio_range=(0.5, 2.0))) > 1
    assert len(shapes(20, img_scale=[(100, 50), (200, 100), (300, 100)])) > 1
    several = shapes(20, img_scale=[(100, 50), (200, 100)], multiscale_mode="value", keep_ratio=False)
    assert several == {(50, 100), (100, 200)}
    assert shapes(img_scale=(100, 20), min_size=40) == {(40, 57)}
    assert Resize((100, 50), "range", None, False)(older_results())["gt_semantic_seg"].shape == (50, 100)
    assert Resize(keep_ratio=False)(older_results(scale=(30, 20)))["img"].shape == (20, 30, 3)


def test_a_subclass_of_a_resize_of_0x():
    from mmseg.datasets.pipelines.transforms import Resize

    class Fixed(Resize):
        def _random_scale(self, results):
            results["scale"], results["scale_idx"] = (30, 20), None

    changed = Fixed(img_scale=(100, 50), ratio_range=(0.5, 1.0))(older_results())
    assert changed["img"].shape == (20, 29, 3) and changed["gt_semantic_seg"].shape == (20, 29)


def test_pad_and_flip_of_0x():
    from mmseg.datasets.pipelines import Pad, RandomFlip

    padded = Pad(size=(64, 60), pad_val=7, seg_pad_val=9)(older_results())  # height and width
    assert padded["img"].shape == (64, 60, 3) and padded["pad_fixed_size"] == (64, 60)
    assert padded["img"][-1, -1].tolist() == [7] * 3 and padded["gt_semantic_seg"][-1, -1] == 9
    before = older_results()
    assert np.array_equal(RandomFlip(prob=1.0)(dict(before))["img"], before["img"][:, ::-1])
    decided = RandomFlip(prob=0.0)(dict(before, flip=True, flip_direction="vertical"))
    assert np.array_equal(decided["gt_semantic_seg"], before["gt_semantic_seg"][::-1])


def test_test_time_augmentation_of_0x_gives_lists():
    from mmseg.datasets.pipelines import MultiScaleFlipAug

    steps = [
        {"type": "Resize", "keep_ratio": True},
        {"type": "RandomFlip"},
        {"type": "Normalize", "mean": [0.0] * 3, "std": [1.0] * 3},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    views = MultiScaleFlipAug(img_scale=(80, 60), img_ratios=[0.5, 1.0], flip=True, transforms=steps)(older_results())
    assert [tuple(image.shape) for image in views["img"]] == [(3, 28, 40)] * 2 + [(3, 56, 80)] * 2
    assert [facts.data["flip"] for facts in views["img_metas"]] == [False, True] * 2
    assert views["img"][0].equal(views["img"][1].flip(-1))


def test_a_config_of_0x_is_known_by_its_arguments():
    from mmseg.datasets import PIPELINES

    made = PIPELINES.build({"type": "Resize", "img_scale": (100, 50)})
    assert made(older_results())["img"].shape == (50, 72, 3)
    assert PIPELINES.build({"type": "Pad", "size": (64, 60), "seg_pad_val": 0})(results())["img"].shape == (64, 60, 3)


@pytest.mark.parametrize("module", ["mmseg.datasets.pipelines", "mmcv.transforms"])
def test_unknown_arguments_are_an_error(module):
    import importlib

    transforms = importlib.import_module(module)
    with pytest.raises(TypeError, match=r"RandomCrop.* has no argument 'size'"):
        transforms.RandomCrop(crop_size=8, size=3)
    with pytest.raises(TypeError, match=r"Resize.* has no .*'img_sale'"):
        transforms.Resize(img_sale=(3, 4))
    with pytest.raises(TypeError, match="8 arguments by position"):
        transforms.Resize(*range(8))


def test_arguments_by_position_are_in_their_order_there():
    from mmcv.transforms import RandomResize, Resize
    from mmseg.datasets.transforms import BioMedicalGaussianBlur

    assert (
        RandomResize((100, 50), (1.0, 1.0), "Resize", keep_ratio=True, backend="cv2")(results())["img"].shape[0] == 50
    )
    assert Resize((100, 50), None, False, True, "cv2", "nearest").interpolation == "nearest"
    blur = BioMedicalGaussianBlur((0.7, 0.8), 1.0)
    assert repr(blur).startswith("BioMedicalGaussianBlur(prob=1.0, prob_per_channel=0.5, sigma_range=(0.7, 0.8)")


# Facts in `results`


def facts(changed, *given):
    """What a transform has put into `results` beside the image and its map."""
    return {key: value for key, value in changed.items() if key not in ("img", "gt_seg_map", "seg_fields", *given)}


def test_results_have_what_each_transform_did():
    from mmcv.transforms import CenterCrop, Pad, RandomFlip, RandomResize, Resize
    from mmseg.datasets.transforms import BioMedical3DPad, PhotoMetricDistortion, RandomCrop

    assert facts(Resize(scale=(100, 50), keep_ratio=True)(results())) == {
        "scale": (100, 50), "scale_factor": (72 / 53, 50 / 37), "keep_ratio": True, "img_shape": (50, 72),
    }  # fmt: skip
    assert facts(Resize(scale_factor=0.5)(results()))["scale"] == (27, 19)
    made = facts(RandomResize(scale=(100, 50), ratio_range=(0.5, 0.5))(results()))
    assert made["scale"] == (50, 25) and made["img_shape"] == (25, 50)
    assert facts(RandomFlip(prob=1.0, direction="vertical")(results())) == {
        "flip": True, "flip_direction": "vertical", "swap_seg_labels": None,
    }  # fmt: skip
    assert facts(RandomFlip(prob=0.0)(results())) == {"flip": False, "flip_direction": None}
    assert facts(Pad(size=(64, 60))(results())) == {
        "img_shape": (60, 64), "pad_shape": (60, 64, 3), "pad_fixed_size": (64, 60), "pad_size_divisor": None,
    }  # fmt: skip
    assert facts(RandomCrop(crop_size=(8, 9))(results())) == {"img_shape": (8, 9)}
    assert facts(CenterCrop(crop_size=(8, 9))(results()))["pad_shape"] == (9, 8)
    assert facts(PhotoMetricDistortion()(results())) == {}
    volume = BioMedical3DPad(pad_shape=(6, 6, 6))({"img": np.zeros((8, 6, 4, 4))})
    assert volume["img"].shape == (8, 6, 6, 6) and volume["pad_shape"] == (6, 6, 6)


def test_results_of_0x_have_shapes_with_channels():
    from mmseg.datasets.pipelines import Pad, RandomCrop, RandomFlip, Resize

    changed = Resize(img_scale=(100, 50))(older_results())
    assert changed["img_shape"] == changed["pad_shape"] == (50, 72, 3)
    np.testing.assert_allclose(changed["scale_factor"], [72 / 53, 50 / 37] * 2, rtol=1e-6)
    padded = Pad(size_divisor=32)(older_results(img_shape=(37, 53, 3)))
    assert padded["img_shape"] == (37, 53, 3) and padded["pad_shape"] == (64, 64, 3)
    assert RandomCrop(crop_size=(8, 9))(older_results())["img_shape"] == (8, 9, 3)
    assert RandomFlip(prob=0.0)(older_results())["flip_direction"] == "horizontal"


def test_packed_facts(photos):
    from mmengine.dataset import Compose

    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (32, 24)},
        {"type": "RandomFlip", "prob": 1.0},
        {"type": "PackSegInputs"},
    ]
    path = str(photos / "data/train/0_photo.png")
    packed = Compose(steps)({"img_path": path})["data_samples"]
    assert packed.metainfo == {
        "img_path": path, "ori_shape": (48, 64), "img_shape": (24, 32), "scale_factor": (0.5, 0.5), "flip": True,
        "flip_direction": "horizontal",
    }  # fmt: skip


@pytest.mark.parametrize("style", ["newer", "older"])
def test_a_step_after_official_ones_is_told_what_they_did(style, photos):
    import importlib

    from mmcv.transforms import BaseTransform
    from mmseg.registry import TRANSFORMS

    from terrazzo.data.build import build_dataset

    importlib.import_module(style)
    seen: list[dict[str, object]] = []

    class Watch(BaseTransform if style == "newer" else object):
        def transform(self, results):
            seen.append(dict(results))
            return results

        __call__ = transform

    TRANSFORMS.register_module(module=Watch)
    prefix = {"img_path": "train", "seg_map_path": "train"}
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": (64, 48), "ratio_range": (0.5, 0.5), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (20, 20)},
        {"type": "RandomFlip", "prob": 1.0, "direction": "vertical"},
        {"type": "Watch"},
        {"type": "Pad", "size": (32, 30)},
        {"type": "Watch"},
        {"type": "PackSegInputs"},
    ]
    kind = {"newer": "NewDataset", "older": "OldDataset"}[style]
    data = build_dataset({"type": kind, "data_root": str(photos / "data"), "data_prefix": prefix, "pipeline": steps})
    assert data[0].image.shape == (30, 32, 3)
    before, after = seen
    assert (before["flip"], before["flip_direction"]) == (True, "vertical")
    assert (before["scale"], before["keep_ratio"], tuple(before["scale_factor"][:2])) == ((32, 24), True, (0.5, 0.5))
    assert before["img_shape"] == ((20, 20) if style == "newer" else (20, 20, 3))
    assert after["pad_shape"] == (30, 32, 3) and after["pad_fixed_size"] == (32, 30) and after["flip"]


# Loading


def test_an_image_is_decoded_by_its_backend(tmp_path):
    from mmcv.transforms import LoadImageFromFile
    from PIL import Image

    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "indexed.png")
    path = {"img_path": str(tmp_path / "indexed.png")}
    colours = LoadImageFromFile(color_type="unchanged")(dict(path))["img"]
    indices = LoadImageFromFile(color_type="unchanged", imdecode_backend="pillow")(dict(path))["img"]
    assert colours[0, 0].tolist() == [7, 8, 9] and indices.tolist() == np.arange(12).reshape(3, 4).tolist()


def test_loaders_of_0x_name_and_measure_as_there(photos):
    from mmcv.transforms import LoadAnnotations as NewerLoadAnnotations
    from mmcv.transforms import LoadImageFromFile as NewerLoadImageFromFile
    from mmseg.datasets.pipelines import LoadAnnotations, LoadImageFromFile

    folder = str(photos / "data/train")
    info = {"filename": "0_photo.png", "ann": {"seg_map": "0_classes.png"}}
    older = {"img_info": info, "ann_info": info["ann"], "img_prefix": folder, "seg_prefix": folder, "seg_fields": []}
    loaded = LoadAnnotations()(LoadImageFromFile()(dict(older)))
    assert loaded["filename"] == f"{folder}/0_photo.png" and loaded["ori_filename"] == "0_photo.png"
    assert loaded["img_shape"] == loaded["ori_shape"] == loaded["pad_shape"] == (48, 64, 3)
    assert loaded["scale_factor"] == 1.0 and loaded["img_norm_cfg"]["std"].tolist() == [1, 1, 1]
    assert loaded["gt_semantic_seg"].shape == (48, 64) and loaded["seg_fields"] == ["gt_semantic_seg"]
    assert LoadImageFromFile(False, "grayscale", {"backend": "disk"}, "cv2")(dict(older))["img"].shape == (48, 64)

    paths = {"img_path": f"{folder}/0_photo.png", "seg_map_path": f"{folder}/0_classes.png", "seg_fields": []}
    newer = NewerLoadAnnotations(with_bbox=False)(NewerLoadImageFromFile()(dict(paths)))
    assert {*newer} == {*paths, "img", "img_shape", "ori_shape", "gt_seg_map"} and newer["img_shape"] == (48, 64)
    with pytest.raises(TypeError, match="LoadImageFromFile has no key 'imdecode'"):
        NewerLoadImageFromFile(imdecode="cv2")
