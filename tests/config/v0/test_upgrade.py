"""The 0.x vocabulary comes out as that of 1.x, with the numbers of 0.x."""

import json
import re
import warnings

import pytest

from support.old_configs import (
    IMAGENET,
    MODEL,
    TEST_PIPELINE,
    TRAIN_PIPELINE,
    old_config,
    upgraded,
    with_data,
    with_train,
)
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.config.v0.upgrade import upgrade_config, upgrade_model
from terrazzo.errors import UserError
from terrazzo.training.pretrained import starts
from terrazzo.transforms.compose import Compose

# Sections


def test_data_become_loaders():
    new = upgraded()
    train, val = new["train_dataloader"], new["val_dataloader"]
    assert train["batch_size"] == 4 and train["num_workers"] == 3
    assert train["sampler"] == {"type": "InfiniteSampler", "shuffle": True}
    assert train["dataset"]["type"] == "BaseSegDataset"
    assert train["dataset"]["data_prefix"] == {"img_path": "img/train", "seg_map_path": "ann/train"}
    assert val["batch_size"] == 1 and val["num_workers"] == 3
    assert val["sampler"] == {"type": "DefaultSampler", "shuffle": False}


def test_loaders_have_settings_of_their_own():
    data = with_data(
        shuffle=False,
        train_dataloader={"samples_per_gpu": 8},
        val_dataloader={"samples_per_gpu": 2, "workers_per_gpu": 0},
    )
    new = upgraded(data=data)
    assert new["train_dataloader"]["batch_size"] == 8 and not new["train_dataloader"]["sampler"]["shuffle"]
    assert new["val_dataloader"]["batch_size"] == 2 and new["val_dataloader"]["num_workers"] == 0
    assert new["test_dataloader"]["batch_size"] == 1 and new["test_dataloader"]["num_workers"] == 3


def test_normalize_and_pad_become_preprocessing():
    preprocessor = upgraded()["model"]["data_preprocessor"]
    padding = {"size": (128, 96), "pad_val": 0, "seg_pad_val": 255}
    assert preprocessor == {"type": "SegDataPreProcessor", **IMAGENET, "bgr_to_rgb": True, **padding}


def test_pad_before_normalize_stays_a_step_with_width_first():
    steps = [*TRAIN_PIPELINE[:5], {"type": "Pad", "size": (128, 96), "pad_val": 7}, *TRAIN_PIPELINE[5:6]]
    new = upgraded(data=with_train(pipeline=steps))
    pad = new["train_dataloader"]["dataset"]["pipeline"][-1]
    assert pad == {"type": "Pad", "size": (96, 128), "pad_val": {"img": 7, "seg": 255}}
    assert "size" not in new["model"]["data_preprocessor"]


def test_pad_of_the_test_pipeline_is_one_of_test_images():
    inner = [*TEST_PIPELINE[1]["transforms"][:3], {"type": "Pad", "size_divisor": 32}]
    data = old_config()["data"]
    for split in ("val", "test"):
        data[split]["pipeline"] = [TEST_PIPELINE[0], TEST_PIPELINE[1] | {"transforms": inner}]
    assert upgraded(data=data)["model"]["data_preprocessor"]["test_cfg"] == {"size_divisor": 32}


def test_without_normalize_the_network_reads_bgr_as_it_is():
    steps = [step for step in TRAIN_PIPELINE if step["type"] != "Normalize"]
    preprocessor = upgraded(data={"samples_per_gpu": 1, "train": with_train(pipeline=steps)["train"]})["model"][
        "data_preprocessor"
    ]
    assert preprocessor["mean"] == [0, 0, 0] and preprocessor["std"] == [1, 1, 1] and not preprocessor["bgr_to_rgb"]


def test_test_pipeline_reads_labels_after_the_resize():
    new = upgraded()
    resize = {"type": "Resize", "scale": (512, 256), "keep_ratio": True}
    load, pack, labels = {"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}, {"type": "LoadAnnotations"}
    assert new["test_dataloader"]["dataset"]["pipeline"] == [load, resize, labels, pack]
    first, several = new["tta_pipeline"]
    assert first == load and several["type"] == "TestTimeAug"
    sizes, mirrored, *rest = several["transforms"]
    assert [step["scale"] for step in sizes] == [(256, 128), (384, 192), (512, 256), (640, 320), (768, 384), (896, 448)]
    assert [step["prob"] for step in mirrored] == [0.0, 1.0] and rest == [[labels], [pack]]


def test_pipeline_that_augments_by_itself_is_for_tta_only():
    several = TEST_PIPELINE[1] | {"img_ratios": [0.5, 1.0], "flip": True, "flip_direction": ["horizontal", "vertical"]}
    data = with_data(test=old_config()["data"]["test"] | {"pipeline": [TEST_PIPELINE[0], several]})
    with pytest.warns(UserWarning, match="--tta"):
        new = upgrade_config(old_config(data=data))
    assert new["test_dataloader"]["dataset"]["pipeline"][1]["scale"] == (512, 256)
    sizes, mirrored = new["tta_pipeline"][1]["transforms"][:2]
    assert [step["scale"] for step in sizes] == [(256, 128), (512, 256)]
    assert [(step["prob"], step["direction"]) for step in mirrored] == [
        (0.0, "horizontal"), (0.0, "vertical"), (1.0, "horizontal"), (1.0, "vertical"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"img_scale": (512, 256)}, {"type": "Resize", "scale": (512, 256), "keep_ratio": True}),
        ({"img_scale": (512, 256), "keep_ratio": False}, {"type": "Resize", "scale": (512, 256), "keep_ratio": False}),
        (
            {"img_scale": (512, 256), "ratio_range": (0.5, 2.0)},
            {"type": "RandomResize", "scale": (512, 256), "ratio_range": (0.5, 2.0), "keep_ratio": True},
        ),
        (
            {"ratio_range": (0.5, 2.0)},
            {"type": "RandomResize", "scale": None, "ratio_range": (0.5, 2.0), "keep_ratio": True},
        ),
        (
            {"img_scale": [(512, 256), (640, 320)]},
            {"type": "RandomResize", "scale": [(512, 256), (640, 320)], "keep_ratio": True},
        ),
        (
            {"img_scale": [(512, 256), (640, 320), (768, 384)], "multiscale_mode": "value"},
            {"type": "RandomChoiceResize", "scales": [(512, 256), (640, 320), (768, 384)], "keep_ratio": True},
        ),
        ({"img_scale": (2560, 640), "min_size": 720}, {"type": "ResizeShortestEdge", "scale": 720}),
    ],
)
def test_resize(old, new):
    data = with_train(pipeline=[TRAIN_PIPELINE[0], {"type": "Resize", **old}])
    assert upgraded(data=data)["train_dataloader"]["dataset"]["pipeline"][1] == new
    Compose([new])


def test_aligned_resize_of_segformer_goes_on_to_multiples():
    resize, multiple = upgraded(
        data=with_train(pipeline=[TRAIN_PIPELINE[0], {"type": "AlignResize", "img_scale": (512, 256)}])
    )["train_dataloader"]["dataset"]["pipeline"][1:]
    assert (resize["type"], resize["scale"]) == ("Resize", (512, 256))
    assert multiple == {"type": "ResizeToMultiple", "size_divisor": 32}

    aligned = {"type": "AlignResize", "keep_ratio": True, "size_divisor": 16}
    steps = [aligned, *[step for step in TEST_PIPELINE[1]["transforms"] if step["type"] != "Resize"]]
    test = old_config()["data"]["test"] | {"pipeline": [TEST_PIPELINE[0], TEST_PIPELINE[1] | {"transforms": steps}]}
    new = upgraded(data=with_data(test=test))
    kinds = [step["type"] for step in new["test_dataloader"]["dataset"]["pipeline"]]
    assert kinds == ["LoadImageFromFile", "Resize", "ResizeToMultiple", "LoadAnnotations", "PackSegInputs"]
    several = new["tta_pipeline"][1]["transforms"]
    assert several[1] == [{"type": "ResizeToMultiple", "size_divisor": 16}] and len(several[0]) > 1


def test_lists_of_folders_and_splits_become_concat_dataset():
    data = with_train(img_dir="img", ann_dir=["a", "b"], split=["a.txt", "b.txt"])
    dataset = upgraded(data=data)["train_dataloader"]["dataset"]
    assert dataset["type"] == "ConcatDataset"
    assert [part["ann_file"] for part in dataset["datasets"]] == ["a.txt", "b.txt"]
    assert [part["data_prefix"] for part in dataset["datasets"]] == [
        {"img_path": "img", "seg_map_path": "a"},
        {"img_path": "img", "seg_map_path": "b"},
    ]


def test_wrappers_and_lists_of_datasets():
    single = old_config()["data"]["train"]
    wrapped = {"type": "RepeatDataset", "times": 5, "dataset": [single, single]}
    dataset = upgraded(data=with_data(train=wrapped))["train_dataloader"]["dataset"]
    assert dataset["type"] == "RepeatDataset" and dataset["times"] == 5
    assert [part["type"] for part in dataset["dataset"]["datasets"]] == ["BaseSegDataset"] * 2


def test_classes_palette_and_labels_of_a_dataset():
    steps = [TRAIN_PIPELINE[0], {"type": "LoadAnnotations", "reduce_zero_label": True}, *TRAIN_PIPELINE[2:]]
    data = with_train(
        pipeline=steps, classes=("a", "b"), palette=[[0, 0, 0], [1, 1, 1]], ignore_index=254, reduce_zero_label=True
    )
    data["val"] = data["val"] | {"gt_seg_map_loader_cfg": {"imdecode_backend": "cv2"}, "test_mode": True}
    new = upgraded(data=data)
    train = new["train_dataloader"]["dataset"]
    assert train["metainfo"] == {"classes": ("a", "b"), "palette": [[0, 0, 0], [1, 1, 1]]}
    assert train["ignore_index"] == 254 and train["reduce_zero_label"]
    labels = new["val_dataloader"]["dataset"]["pipeline"][2]
    assert labels == {"type": "LoadAnnotations", "reduce_zero_label": True, "imdecode_backend": "cv2"}


SGD = {"type": "SGD", "lr": 0.01, "momentum": 0.9}


@pytest.mark.parametrize(
    ("sections", "wrapper"),
    [
        ({}, {"type": "OptimWrapper"}),
        ({"optimizer_config": {"grad_clip": {"max_norm": 1}}}, {"type": "OptimWrapper", "clip_grad": {"max_norm": 1}}),
        (
            {"optimizer": SGD | {"paramwise_cfg": {"norm_decay_mult": 0}, "constructor": "LayerDecay"}},
            {"type": "OptimWrapper", "paramwise_cfg": {"norm_decay_mult": 0}, "constructor": "LayerDecay"},
        ),
        (
            {"optimizer_config": {"type": "Fp16OptimizerHook", "loss_scale": "dynamic"}, "fp16": {}},
            {"type": "AmpOptimWrapper", "loss_scale": "dynamic"},
        ),
        ({"fp16": {"loss_scale": 128.0}}, {"type": "AmpOptimWrapper", "loss_scale": 128.0}),
        (
            {"optimizer_config": {"type": "GradientCumulativeFp16OptimizerHook", "cumulative_iters": 4}},
            {"type": "AmpOptimWrapper", "accumulative_counts": 4, "loss_scale": 512.0},
        ),
        (
            {
                "optimizer_config": {
                    "type": "DistOptimizerHook",
                    "update_interval": 2,
                    "grad_clip": None,
                    "use_fp16": False,
                }
            },
            {"type": "OptimWrapper", "accumulative_counts": 2},
        ),
    ],
)
def test_optimizer(sections, wrapper):
    assert upgraded(**sections)["optim_wrapper"] == wrapper | {"optimizer": SGD}


def test_evaluation_checkpoints_and_logs():
    wandb = {"type": "WandbLoggerHook", "init_kwargs": {"project": "p"}}
    new = upgraded(
        evaluation={"interval": 50, "start": 200, "metric": ["mIoU", "mDice"], "save_best": "mIoU", "rule": "greater"},
        checkpoint_config={"interval": 100, "max_keep_ckpts": 3},
        log_config={"interval": 20, "hooks": [{"type": "TensorboardLoggerHook"}, wandb]},
    )
    assert new["train_cfg"] == {"type": "IterBasedTrainLoop", "max_iters": 1000, "val_interval": 50, "val_begin": 200}
    assert new["val_evaluator"] == new["test_evaluator"] == {"type": "IoUMetric", "iou_metrics": ["mIoU", "mDice"]}
    run = make_experiment(new).run
    assert (run.val_interval, run.log_interval, run.checkpoint_interval, run.keep_checkpoints) == (50, 20, 100, 3)
    assert run.best.name == "mIoU"
    backends = [
        {"type": "LocalVisBackend"},
        {"type": "TensorboardVisBackend"},
        {"type": "WandbVisBackend", "init_kwargs": {"project": "p"}},
    ]
    assert new["vis_backends"] == new["visualizer"]["vis_backends"] == backends


def test_run_in_epochs():
    new = upgraded(
        runner={"type": "EpochBasedRunner", "max_epochs": 30},
        checkpoint_config={"interval": 1},
        evaluation={"interval": 2},
    )
    assert new["train_cfg"] == {"type": "EpochBasedTrainLoop", "max_epochs": 30, "val_interval": 2}
    assert new["train_dataloader"]["sampler"]["type"] == "DefaultSampler" and new["train_dataloader"]["drop_last"]
    run = make_experiment(new).run
    assert (run.length, run.unit, run.val_interval, run.checkpoint_unit) == (30, "epoch", 2, "epoch")


def test_environment():
    new = upgraded(
        seed=3, deterministic=True, cudnn_benchmark=True, dist_params={"backend": "gloo"}, resume_from="a.pth",
        find_unused_parameters=True, work_dir="w", custom_imports={"imports": ["mmcls.models"]},
    )  # fmt: skip
    assert new["randomness"] == {"seed": 3, "deterministic": True}
    assert new["env_cfg"]["cudnn_benchmark"] and new["env_cfg"]["dist_cfg"] == {"backend": "gloo"}
    assert new["load_from"] == "a.pth" and new["resume"] is True and new["work_dir"] == "w"
    assert new["find_unused_parameters"] and new["custom_imports"] == {"imports": ["mmpretrain.models"]}


def test_hooks_that_a_setting_stands_for():
    hooks = [
        {"type": "EMAHook", "momentum": 0.001, "interval": 1},
        {"type": "CheckpointHook", "interval": 7, "max_keep_ckpts": 2, "save_best": "mDice"},
        {"type": "EvalHook", "interval": 9},
        {"type": "MyHook"},
    ]
    new = upgrade_config(old_config(custom_hooks=hooks))
    assert [hook["type"] for hook in new["custom_hooks"]] == ["EMAHook", "MyHook"]
    with pytest.warns(UserWarning, match="'MyHook' is not run"):  # nobody has registered it
        run = make_experiment(new).run
    assert (run.averaging.momentum, run.checkpoint_interval, run.keep_checkpoints, run.best.name) == (
        0.001,
        7,
        2,
        "mDice",
    )
    assert run.val_interval == 9


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("NumClassCheckHook", "its work is always done"),
        ("SyncBuffersHook", "its work is always done"),
        ("ProfilerHook", r"terrazzo train --profile"),
        ("MemoryProfilerHook", "no setting replaces this one"),
        ("mmcv.MyHook", "no setting replaces this one"),
    ],
)
@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_a_hook_that_is_not_run_is_named_once(kind, instead, version):
    config = old_config() if version == "0.x" else upgraded()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_experiment(load_config(config | {"custom_hooks": [{"type": kind}]}))
    told = [str(warning.message) for warning in caught if "is not run" in str(warning.message)]
    assert len(told) == 1 and re.search(f"'{kind.rpartition('.')[2]}' is not run.*{instead}", told[0])


# Overrides


EARLY = {"train_cfg": {}, "test_cfg": {"mode": "whole"}, "runner": None, "total_iters": 1000}


@pytest.mark.parametrize(
    ("sections", "override", "key", "value"),
    [
        (EARLY, {"train_cfg.max_iters": 10}, "train_cfg.max_iters", 10),
        (EARLY, {"train_cfg.val_interval": 7}, "train_cfg.val_interval", 7),
        (EARLY, {"test_cfg.mode": "slide"}, "model.test_cfg.mode", "slide"),
        (EARLY, {"total_iters": 10}, "train_cfg.max_iters", 10),
        (EARLY, {"runner.max_iters": 10}, "train_cfg.max_iters", 10),
        ({}, {"train_cfg.max_iters": 10}, "train_cfg.max_iters", 10),
        ({}, {"runner.max_iters": 10}, "train_cfg.max_iters", 10),
        ({}, {"seed": 3}, "randomness.seed", 3),
        ({}, {"fp16.loss_scale": 512.0}, "optim_wrapper.type", "AmpOptimWrapper"),
        ({}, {"data.samples_per_gpu": 3}, "train_dataloader.batch_size", 3),
        ({}, {"train_dataloader.batch_size": 3}, "train_dataloader.batch_size", 3),
        ({}, {"optimizer.lr": 0.5}, "optim_wrapper.optimizer.lr", 0.5),
        ({}, {"optim_wrapper.optimizer.lr": 0.5}, "optim_wrapper.optimizer.lr", 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_overrides_take_the_names_of_both_vocabularies(sections, override, key, value):
    found = load_config(old_config(**sections), override)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_an_old_key_for_a_new_config_is_named_with_its_successor():
    with pytest.raises(UserError, match=r"'optimizer.lr' is a key of the 0.x vocabulary.*set optim_wrapper.optimizer"):
        load_config(upgraded(), {"optimizer.lr": 0.1})


# What a type meant


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "VisionTransformer"}, {"patch_bias": True}),
        ({"type": "DiceLoss"}, {"formula": "per_class"}),
        ({"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]}, {"weight_average": "pixels"}),
        ({"type": "CrossEntropyLoss"}, {}),
        ({"type": "mmcls.ConvNeXt"}, {"type": "mmpretrain.ConvNeXt"}),
    ],
)
def test_what_differs_in_meaning_is_written_out(old, new):
    assert upgrade_model({"type": "EncoderDecoder", "backbone": [old]})["backbone"] == [old | new]


# Early forms


def test_before_07_the_model_had_its_test_cfg_beside_it():
    new = upgraded(train_cfg={}, test_cfg={"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)})
    assert new["model"]["test_cfg"] == {"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)}
    assert new["model"]["train_cfg"] == {} and new["test_cfg"] == {"type": "TestLoop"}
    assert new["train_cfg"]["max_iters"] == 1000


@pytest.mark.parametrize(("key", "name"), [("total_iters", "max_iters"), ("total_epochs", "max_epochs")])
def test_before_runner_there_was_a_total(key, name):
    new = upgraded(runner=None, checkpoint_config={"interval": 1}, **{key: 500})
    assert new["train_cfg"][name] == 500


def test_a_runner_of_a_project_gives_way_to_our_loop():
    runner = {"type": "DynamicIterBasedRunner", "is_dynamic_ddp": False, "max_iters": 700}
    with pytest.warns(UserWarning, match="loop takes the place of DynamicIterBasedRunner"):
        assert upgrade_config(old_config(runner=runner))["train_cfg"]["max_iters"] == 700


def test_early_flips_were_drawn_by_flip_ratio():
    steps = [*TRAIN_PIPELINE[:4], {"type": "RandomFlip", "flip_ratio": 0.3}]
    dataset = upgraded(data=with_train(pipeline=steps))["train_dataloader"]["dataset"]
    assert dataset["pipeline"][-1] == {"type": "RandomFlip", "prob": 0.3}


# What a user hears


def test_one_warning_tells_every_new_name():
    with pytest.warns(UserWarning) as caught:
        upgrade_config(old_config(), "old.py")
    (message,) = [str(warning.message) for warning in caught]
    for name in ("lr_config -> param_scheduler", "samples_per_gpu -> batch_size", "runner -> train_cfg"):
        assert message.count(name) == 1
    assert "terrazzo config upgrade old.py" in message


def test_a_runner_may_state_the_folder_of_the_run():
    new = upgrade_config(old_config() | {"runner": {"type": "IterBasedRunner", "max_iters": 7, "work_dir": "runs/a"}})
    assert (new["work_dir"], new["train_cfg"]["max_iters"]) == ("runs/a", 7)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": with_data(samples_per_gqu=2)}, "data has no key 'samples_per_gqu'.*'samples_per_gpu'"),
        ({"data": with_train(img_dirs="x")}, r"data.train \(CustomDataset\) has no key 'img_dirs'.*'img_dir'"),
        ({"evaluation": {"intervall": 2}}, "evaluation has no key 'intervall'.*'interval'"),
        ({"lr_config": {"policy": "polly"}}, "no policy is called 'polly'.*'poly'"),
        ({"lr_config": {"policy": "poly", "min_rl": 0}}, r"lr_config \(poly\) has no key 'min_rl'.*'min_lr'"),
        ({"lr_config": {"policy": "poly", "warmup": "line"}}, "lr_config.warmup: 'line'"),
        ({"runner": {"max_iter": 2}}, "runner has no key 'max_iter'.*'max_iters'"),
        ({"optimizer_config": {"type": "Fp16Hook"}}, "no hook is called 'Fp16Hook'.*'Fp16OptimizerHook'"),
        ({"data": with_train(pipeline=[{"type": "Normalize", "means": 0}])}, "Normalize.*'means'.*'mean'"),
        ({"data": with_train(split=["a", "b"], ann_dir=["a", "b", "c"])}, "one length"),
        ({"data": 3}, "data is a dict, not 3"),
        ({"workflow": "train"}, "workflow is a list, not 'train'"),
        ({"runner": {"max_iters": "many"}}, "runner.max_iters must be a whole number"),
        ({"log_config": {"hooks": 1}}, "log_config has a value of the wrong kind: 'int' object is not iterable"),
        (
            {"data": with_train(pipeline=[{"type": "Resize", "img_scale": 5}])},
            "data.train .CustomDataset..pipeline has a value of",
        ),
        ({"evaluation": {"metric": 0.5}}, "evaluation has a value of the wrong kind"),
    ],
)
def test_mistakes_are_named(sections, message):
    with pytest.raises(UserError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        upgrade_config(old_config(**sections))


def test_near_miss_of_a_section_is_a_variable_with_a_warning():
    with pytest.warns(UserWarning, match="'lr_confg' is taken as a variable; did you mean 'lr_config'"):
        assert upgrade_config(old_config(lr_confg={}))["lr_confg"] == {}


def test_variables_stay_and_the_argument_is_not_changed():
    old = old_config(crop_size=(128, 96), train_pipeline=TRAIN_PIPELINE, img_norm_cfg=IMAGENET)
    before = json.dumps(old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = upgrade_config(old)
    assert json.dumps(old) == before
    assert new["crop_size"] == (128, 96) and "img_norm_cfg" not in new
    assert new["train_pipeline"] == new["train_dataloader"]["dataset"]["pipeline"]


def test_weights_of_the_backbone_itself_win_over_inherited_ones():
    backbone = {"type": "ResNetV1c", "init_cfg": {"type": "Pretrained", "checkpoint": "r101.pth"}}
    new = upgraded(model=MODEL | {"backbone": backbone, "pretrained": "r50.pth"})
    assert [start.checkpoint for start in starts(new["model"])] == ["r101.pth"]
