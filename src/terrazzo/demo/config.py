"""The config of `terrazzo demo`: a small real-time network that learns drawn street scenes in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terrazzo.demo.scenes import CLASSES, PALETTE

CHANNELS = 16  # of the first stage; each further stage has twice as many at half the size
CONVOLUTIONS = (1, 1, 2, 2, 2)  # in each stage on the way down; one on the way up
# rare and thin classes count more, so that they are learned early
CLASS_WEIGHT = {"road": 0.9, "pavement": 1.2, "building": 0.9, "car": 1.1, "person": 2.0, "sign": 1.5}

Section = dict[str, Any]


def demo_config(data: Path, iterations: int, seed: int, crop: tuple[int, int]) -> Section:
    """Return the config, in the 1.x vocabulary, for scenes that `write_scenes` wrote to `data`."""
    read: list[Section] = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    augmented: list[Section] = [
        *read,
        {"type": "RandomCrop", "crop_size": list(crop), "cat_max_ratio": 1.0},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackSegInputs"},
    ]
    plain: list[Section] = [*read, {"type": "PackSegInputs"}]
    warmup = max(1, iterations // 20)
    return {
        "model": model(crop),
        "train_dataloader": loader(data, "train", augmented, batch=8, shuffle=True),
        "val_dataloader": loader(data, "val", plain, batch=8),
        "test_dataloader": loader(data, "test", plain, batch=8),
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 8e-3, "weight_decay": 0.01}},
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": warmup, "by_epoch": False},
            {"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "begin": warmup, "end": iterations, "by_epoch": False},
        ],
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": iterations,
            "val_interval": max(1, iterations // 8),
        },
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": max(1, iterations // 28)},
            "checkpoint": {"type": "CheckpointHook", "interval": iterations, "by_epoch": False, "save_best": "mIoU"},
        },
        "randomness": {"seed": seed},
        "channels_last": True,
    }


def model(crop: tuple[int, int]) -> Section:
    """Return a small UNet (Ronneberger et al., MICCAI 2015) that starts at half the image's size, from scratch."""
    stages = len(CONVOLUTIONS)
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [127.5] * 3,
            "std": [64.0] * 3,
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": 255,
            "size": list(crop),
        },
        "backbone": {
            "type": "UNet",
            "base_channels": CHANNELS,
            "num_stages": stages,
            "strides": [2] * stages,
            "enc_num_convs": list(CONVOLUTIONS),
            "dec_num_convs": [1] * (stages - 1),
            "downsamples": [True] * (stages - 1),
            "enc_dilations": [1] * stages,
            "dec_dilations": [1] * (stages - 1),
            "upsample_cfg": {"type": "InterpConv", "conv_first": True},
        },
        "decode_head": {
            "type": "FCNHead",
            "in_channels": CHANNELS,
            "in_index": stages - 1,
            "channels": CHANNELS,
            "num_convs": 0,
            "concat_input": False,
            "num_classes": len(CLASSES),
            "dropout_ratio": 0.0,
            "align_corners": False,
            "loss_decode": {
                "type": "CrossEntropyLoss",
                "class_weight": [CLASS_WEIGHT.get(name, 1.0) for name in CLASSES],
            },
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }


def loader(data: Path, split: str, pipeline: list[Section], batch: int, shuffle: bool = False) -> Section:
    """Return the dataloader section of one split; the training set repeats without end."""
    return {
        "batch_size": batch,
        "num_workers": 1,
        "sampler": {"type": "InfiniteSampler" if shuffle else "DefaultSampler", "shuffle": shuffle},
        "dataset": {
            "type": "BaseSegDataset",
            "data_root": str(data),
            "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
            "metainfo": {"classes": list(CLASSES), "palette": [list(colour) for colour in PALETTE]},
            "pipeline": pipeline,
        },
    }
