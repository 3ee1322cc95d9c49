"""Training samples of Cityscapes' pipeline: terrazzo and MMSegmentation's transforms, step by step in turn.

    python benchmarks/data.py --peer-python PEER/bin/python [--pairs 15] [--tasks loaded opencv ram disk]

2048x1024 PNGs of about 2.3 MB are read, resized by 0.5 to 2, cropped to 512x1024 with `cat_max_ratio`, mirrored,
distorted in brightness and colours, and packed as tensors. Both sides are processes of their own with one thread and
the same files; a step is two samples of each file, and who goes first alternates. The ratio is the median over the
pairs of the peer's time by terrazzo's. Tasks: `loaded` starts from decoded arrays on both sides; for `opencv` terrazzo
decodes with OpenCV, for `ram` and `disk` it has a filled cache. The peer decodes as it always does.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from turns import answer, in_turn, ratio

TASKS = ("loaded", "opencv", "ram", "disk")
FILES, DRAWS = 4, 2  # a step is so many draws of each file
LOADING = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
AUGMENTING = [
    {"type": "RandomResize", "scale": (2048, 1024), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (512, 1024), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]


def write_files(folder: Path) -> None:
    """Drawn streets with the noise of a camera, as large on disk as Cityscapes' images, and their labels."""
    from PIL import Image

    from terrazzo.demo.scenes import draw_scene

    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(FILES):
        rng = np.random.default_rng(number)
        image, label = draw_scene(rng, (1024, 2048))
        noise = cv2.GaussianBlur(rng.normal(0, 1, image.shape), (0, 0), 0.6)
        image = np.clip(np.rint(cv2.GaussianBlur(image, (0, 0), 1.0) + noise), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(label).save(folder / "labels" / f"{number}.png")


def terrazzo_step(folder: Path, task: str) -> Any:
    from terrazzo.data.build import build_dataset
    from terrazzo.data.loaders import own_tensor, to_tensor
    from terrazzo.data.workers import keep_freed_memory
    from terrazzo.sample import Target
    from terrazzo.transforms import Compose

    keep_freed_memory()  # as in every loader worker
    spec = {"type": "BaseSegDataset", "data_root": str(folder), "metainfo": {"classes": [str(k) for k in range(19)]}}
    spec |= {"data_prefix": {"img_path": "images", "seg_map_path": "labels"}}
    spec |= {"cache": task} if task in ("ram", "disk") else {}
    dataset = build_dataset(spec | {"pipeline": LOADING + AUGMENTING})
    stored = [build_dataset(spec | {"pipeline": LOADING})[index] for index in range(FILES)]
    augment, draws = Compose(AUGMENTING), iter(range(10**9))

    def one(index: int, draw: int) -> list[int]:
        if task == "loaded":
            sample = dataset.start(index)
            sample.image, sample.targets = stored[index].image, {"label": Target(stored[index].label)}
            sample = augment(sample, np.random.default_rng([0, draw, index]))
        else:
            sample = dataset[draw, index]
        return [*to_tensor(sample.image).shape, *own_tensor(sample.label).shape]

    return lambda: [one(index, draw) for _, draw in zip(range(DRAWS), draws, strict=False) for index in range(FILES)]


def peer_step(folder: Path, task: str) -> Any:
    import mmseg.datasets.transforms  # noqa: F401
    from mmcv.transforms import Compose
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    random.seed(0)
    np.random.seed(0)
    load, augment = Compose(LOADING), Compose(AUGMENTING)
    facts = {"reduce_zero_label": False, "label_map": None}
    starts: list[dict[str, Any]] = [
        {"img_path": str(path), "seg_map_path": str(folder / "labels" / path.name), **facts}
        for path in sorted((folder / "images").iterdir())
    ]
    stored = [load({**start, "seg_fields": []}) for start in starts]

    def one(index: int) -> list[int]:
        if task == "loaded":
            packed = augment({**stored[index], "seg_fields": list(stored[index]["seg_fields"])})
        else:
            packed = augment(load({**starts[index], "seg_fields": []}))
        return [*packed["inputs"].shape, *packed["data_samples"].gt_sem_seg.data.shape[1:]]

    return lambda: [one(index) for _ in range(DRAWS) for index in range(FILES)]


def run_side(name: str, folder: str, task: str) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    answer(lambda: {"terrazzo": terrazzo_step, "mmseg": peer_step}[name](Path(folder), task))


def compare(folder: Path, task: str, peer_python: str | None, pairs: int) -> str:
    """A row of the table."""
    pythons = {"terrazzo": sys.executable} | ({"mmseg": peer_python} if peer_python else {})
    script = [str(Path(__file__)), "--side"]
    commands = {name: [python, "-W", "ignore", *script, name, str(folder), task] for name, python in pythons.items()}
    times = in_turn(commands, pairs)
    columns = [task, *(f"{median(side['wall']) / FILES / DRAWS * 1000:.1f} ms" for side in times.values())]
    if peer_python:
        columns += [f"{ratio(times):.1f}", f"{ratio(times, 'cpu'):.1f}"]
    return f"| {' | '.join(columns)} |"


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        return run_side(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with MMSegmentation 1.x (default: no peer)")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    args = parser.parse_args()
    columns = ["an image", "terrazzo", "MMSegmentation", "ratio (wall)", "ratio (cpu)"]
    columns = columns if args.peer_python else columns[:2]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TERRAZZO_HOME"] = f"{folder}/home"
        write_files(Path(folder))
        for task in args.tasks:
            print(compare(Path(folder), task, args.peer_python, args.pairs), flush=True)
    return None


if __name__ == "__main__":
    main()
