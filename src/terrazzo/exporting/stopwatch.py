"""A process that segments one image again and again, when it is told to, and tells how long that takes.

    python -m terrazzo.exporting.stopwatch '{"model": "street.onnx", "size": [512, 1024]}'

`model` and `checkpoint` are what `tz.load` takes, `preparation` is one of PREPARATIONS. It answers in lines of JSON:
"ready", then for each line on standard input the seconds of one step, on the wall and of this process, and how many
pixels have each label; to the line "end" the most memory that it had and, with `check`, the mIoU on the validation set
of a config.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.inference.load import load
from terrazzo.inference.segmenter import Segmenter


def in_bf16(segmenter: Segmenter) -> None:
    """Turn the network, but not the steps on images and logits, to bfloat16."""
    import torch

    model = segmenter.model
    preprocess, decode = copy.deepcopy(model.preprocess), model.decode
    model.to(torch.bfloat16, memory_format=torch.channels_last)
    model.preprocess = preprocess
    model.decode = lambda images: decode(images.bfloat16()).float()


def compiled(segmenter: Segmenter) -> None:
    """Compile the network for the sizes that it meets."""
    import torch

    segmenter.model.decode = torch.compile(segmenter.model.decode)


PREPARATIONS: dict[str, Callable[[Segmenter], None]] = {
    "none": lambda segmenter: None,
    "bf16": in_bf16,
    "compile": compiled,
}


def scene(height: int, width: int, bands: int) -> np.ndarray:
    """A smooth image (height, width, bands) with few borders between classes, as in photographs."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, bands), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, bands)


def peak_memory() -> int | None:
    """The most bytes that this process has had in memory; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except OSError:  # not Linux
        return None


def miou(segmenter: Segmenter, config: Any) -> float:
    """The model's mIoU in percent on a config's validation set."""
    from terrazzo.exporting.gate import Check
    from terrazzo.metrics.paired import iou_scores

    return float(iou_scores(Check(config, segmenter).original.sum(0))[0])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    task = json.loads(sys.argv[1])
    cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS") or cv2.getNumThreads()))
    segmenter = load(task["model"], task.get("checkpoint"), "cpu")
    PREPARATIONS[task.get("preparation", "none")](segmenter)
    height, width = task["size"]
    image = scene(height, width, segmenter.runtime.bands)
    segmenter(image)
    answer("ready")
    for line in sys.stdin:
        if line.strip() == "end":
            memory = peak_memory()
            answer({"memory": memory, "mIoU": miou(segmenter, task["check"]) if task.get("check") else None})
            return
        wall, own = time.perf_counter(), time.process_time()
        labels = segmenter(image).labels
        wall, own = time.perf_counter() - wall, time.process_time() - own
        answer({"wall": wall, "cpu": own, "result": np.bincount(labels.ravel()).tolist()})


if __name__ == "__main__":
    main()
