"""A small config in the 0.x vocabulary, to change at will."""

import warnings

from terrazzo.config.v0.upgrade import upgrade_config

IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
TRAIN_PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "Resize", "img_scale": (512, 256), "ratio_range": (0.5, 2.0)},
    {"type": "RandomCrop", "crop_size": (128, 96), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "Normalize", **IMAGENET, "to_rgb": True},
    {"type": "Pad", "size": (128, 96), "pad_val": 0, "seg_pad_val": 255},
    {"type": "DefaultFormatBundle"},
    {"type": "Collect", "keys": ["img", "gt_semantic_seg"]},
]
TEST_PIPELINE = [
    {"type": "LoadImageFromFile"},
    {
        "type": "MultiScaleFlipAug",
        "img_scale": (512, 256),
        "flip": False,
        "transforms": [
            {"type": "Resize", "keep_ratio": True},
            {"type": "RandomFlip"},
            {"type": "Normalize", **IMAGENET, "to_rgb": True},
            {"type": "ImageToTensor", "keys": ["img"]},
            {"type": "Collect", "keys": ["img"]},
        ],
    },
]
MODEL = {"type": "EncoderDecoder", "backbone": {"type": "ERFNet"}, "decode_head": {"type": "FCNHead"}}


def old_config(**sections):
    """A small 0.x config; `sections` replace its own, None leaves one out."""
    dataset = {"type": "CustomDataset", "data_root": "data/x", "img_dir": "img/train", "ann_dir": "ann/train"}
    config = {
        "model": MODEL,
        "data": {
            "samples_per_gpu": 4,
            "workers_per_gpu": 3,
            "train": dataset | {"pipeline": TRAIN_PIPELINE},
            "val": dataset | {"img_dir": "img/val", "ann_dir": "ann/val", "pipeline": TEST_PIPELINE},
            "test": dataset | {"img_dir": "img/val", "ann_dir": "ann/val", "pipeline": TEST_PIPELINE},
        },
        "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9},
        "optimizer_config": {},
        "lr_config": {"policy": "poly", "power": 0.9, "min_lr": 1e-4, "by_epoch": False},
        "runner": {"type": "IterBasedRunner", "max_iters": 1000},
        "checkpoint_config": {"by_epoch": False, "interval": 100},
        "evaluation": {"interval": 50, "metric": "mIoU", "pre_eval": True},
        "log_config": {"interval": 20, "hooks": [{"type": "TextLoggerHook", "by_epoch": False}]},
    } | sections
    return {name: section for name, section in config.items() if section is not None}


def upgraded(**sections):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return upgrade_config(old_config(**sections))


def with_data(**changes):
    return old_config()["data"] | changes


def with_train(**changes):
    return with_data(train=old_config()["data"]["train"] | changes)
