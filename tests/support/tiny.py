"""Data sets, configs and models so small that a training run takes a second."""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

import terrazzo as tz
from terrazzo.training.monitoring import progress

CLASSES = ["sky", "road", "car"]
COLOURS = np.array([[90, 150, 230], [90, 90, 90], [220, 40, 40]], np.uint8)
MEAN, STD = [120.0, 120.0, 120.0], [60.0, 60.0, 60.0]


def street(seed: int, height: int = 32, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image and its label: sky above road, with one car."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    label[height // 2 + int(rng.integers(-4, 5)) :] = 1
    left = int(rng.integers(0, width - 12))
    label[height // 2 : height // 2 + 8, left : left + 12] = 2
    noise = rng.normal(0, 15, (height, width, 3))
    return np.clip(COLOURS[label] + noise, 0, 255).astype(np.uint8), label


def save_image(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def save_label(path: Path, label: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), label)
    return path


def make_streets(root: Path, train: int = 6, val: int = 3, size: tuple[int, int] = (32, 40)) -> Path:
    """`images/{train,val}` and `labels/{train,val}` below `root`."""
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for index in range(count):
            image, label = street(first + index, *size)
            save_image(root / "images" / split / f"{index:02d}.png", image)
            save_label(root / "labels" / split / f"{index:02d}.png", label)
    return root


def model_config(num_classes: int = 3, dropout: float = 0.1, **head: Any) -> dict[str, Any]:
    """A UNet of two stages and four channels."""
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "mean": MEAN, "std": STD, "bgr_to_rgb": True},
        "backbone": {
            "type": "UNet",
            "base_channels": 4,
            "num_stages": 2,
            "strides": [1, 1],
            "enc_num_convs": [1, 1],
            "dec_num_convs": [1],
            "downsamples": [True],
            "enc_dilations": [1, 1],
            "dec_dilations": [1],
        },
        "decode_head": {
            "type": "FCNHead",
            "in_channels": 4,
            "in_index": 1,
            "channels": 8,
            "num_convs": 1,
            "concat_input": False,
            "num_classes": num_classes,
            "dropout_ratio": dropout,
            "norm_cfg": {"type": "BN"},
            "loss_decode": {"type": "CrossEntropyLoss"},
            **head,
        },
        "test_cfg": {"mode": "whole"},
    }


def dataset_config(root: Path, split: str, classes: list[str] = CLASSES, augment: bool = False) -> dict[str, Any]:
    """A folder data set; `augment` crops and flips at random."""
    random = [{"type": "RandomCrop", "crop_size": [24, 24]}, {"type": "RandomFlip", "prob": 0.5}] if augment else []
    load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    return {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
        "metainfo": {"classes": list(classes)},
        "pipeline": [*load, *random, {"type": "PackSegInputs"}],
    }


def tiny_config(root: Path, steps: int = 6, batch: int = 2, workers: int = 0, **sections: Any) -> dict[str, Any]:
    """A whole config in the 1.x vocabulary; `sections` replaces its sections."""
    evaluation = {"batch_size": 1, "num_workers": 0, "dataset": dataset_config(root, "val")}
    config = {
        "model": model_config(),
        "train_dataloader": {
            "batch_size": batch,
            "num_workers": workers,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": dataset_config(root, "train", augment=True),
        },
        "val_dataloader": evaluation,
        "test_dataloader": copy.deepcopy(evaluation),
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "param_scheduler": [{"type": "PolyLR", "power": 0.9, "begin": 0, "end": steps, "by_epoch": False}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": steps},
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {"type": "CheckpointHook", "interval": 1000, "by_epoch": False, "save_best": "mIoU"},
        },
        "randomness": {"seed": 3},
    }
    return copy.deepcopy(config | sections)


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def short_form(root: Path, **changes: Any) -> dict[str, Any]:
    """The few lines of a person with their own images, with the recipe's model made narrow."""
    return {
        "recipe": "unet",
        "data": {"root": str(root), "images": "images", "labels": "labels", "classes": CLASSES},
        "crop": "32x32",
        "batch": 2,
        "workers": 0,
        "iterations": 4,
        "val_interval": 2,
        "log_interval": 1,
        "model": {
            "backbone": {"base_channels": 4},
            "decode_head": {"in_channels": 4, "channels": 4},
            "auxiliary_head": {"in_channels": 8, "channels": 4},
        },
        **changes,
    }


def fit(config: dict[str, Any], work_dir: Path, **options: Any) -> Any:
    return tz.train(config, work_dir=work_dir, quiet=True, device="cpu", **options)


def records(work_dir: Path, mode: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if mode in (None, line["mode"])]


def states(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / "checkpoints").iterdir())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return tz.models.checkpoint.read_checkpoint(path).weights


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}


def terrazzo(*arguments: Any, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the `terrazzo` program."""
    command = [sys.executable, "-m", "terrazzo", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout)


def start_terrazzo(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start it and go on; it is a process group of its own."""
    command = [sys.executable, "-m", "terrazzo", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), start_new_session=True, **(pipes | options))


def stop_at(monkeypatch: Any, step: int) -> None:
    """Let the process send itself a SIGTERM in the middle of a step."""
    original, steps = progress.Meter.add, itertools.count(1)

    def add(meter, losses):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(meter, losses)

    monkeypatch.setattr(progress.Meter, "add", add)
