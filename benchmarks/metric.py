"""Counting one image for mIoU: terrazzo and MMSegmentation's IoUMetric, step by step in turn.

    python benchmarks/metric.py --peer-python PEER/bin/python [--pairs 15] [--threads 1]

Both sides are processes of their own, with the same threads, and count the same class maps; who goes first alternates.
The ratio is the median over the pairs of the peer's time by terrazzo's. Counts are compared: intersection, union,
predicted and labelled pixels of each class.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import Any

import numpy as np
from turns import answer, in_turn, ratio

CASES = {"1024x2048, 19 classes": (1024, 2048, 19), "512x683, 150 classes": (512, 683, 150)}


def class_maps(height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a label in regions, with wrong and ignored pixels."""
    random = np.random.Generator(np.random.PCG64(0))
    small = random.integers(0, classes, (height // 32 + 1, width // 32 + 1))
    label = small.repeat(32, 0).repeat(32, 1)[:height, :width]
    wrong = random.random(label.shape) < 0.2
    prediction = np.where(wrong, random.integers(0, classes, label.shape), label)
    return prediction.astype(np.uint8), np.where(random.random(label.shape) < 0.05, 255, label).astype(np.uint8)


def terrazzo_step(height: int, width: int, classes: int) -> Any:
    import torch

    from terrazzo.metrics import ConfusionMatrix

    prediction, label = map(torch.from_numpy, class_maps(height, width, classes))
    matrix = ConfusionMatrix(classes)

    def step() -> list[list[int]]:
        counts = matrix.update(prediction, label)
        hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        return [part.tolist() for part in (hits, labelled + predicted - hits, predicted, labelled)]

    return step


def peer_step(height: int, width: int, classes: int) -> Any:
    import torch
    from mmseg.evaluation import IoUMetric

    prediction, label = (torch.from_numpy(part.astype(np.int64)) for part in class_maps(height, width, classes))
    metric = IoUMetric()
    metric.dataset_meta = {"classes": [str(index) for index in range(classes)]}
    samples = [{"pred_sem_seg": {"data": prediction[None]}, "gt_sem_seg": {"data": label[None]}}]

    def step() -> list[list[int]]:
        metric.results.clear()
        metric.process({}, samples)
        return [part.long().tolist() for part in metric.results[0]]

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with MMSegmentation 1.x (default: no peer)")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        name, case = args.side
        answer(lambda: (terrazzo_step if name == "terrazzo" else peer_step)(*CASES[case]))
        return
    pythons = {"terrazzo": sys.executable} | ({"mmseg": args.peer_python} if args.peer_python else {})
    for case in CASES:
        commands = {name: [python, "-W", "ignore", __file__, "--side", name, case] for name, python in pythons.items()}
        times = in_turn(commands, args.pairs, args.threads)
        words = [f"{name} {1000 * median(side['wall']):.1f} ms" for name, side in times.items()]
        if args.peer_python:
            equal = times["terrazzo"]["result"] == times["mmseg"]["result"]
            words += [f"ratio {ratio(times):.1f} (wall), {ratio(times, 'cpu'):.1f} (cpu)", f"equal counts: {equal}"]
        print(f"{case}: {', '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
