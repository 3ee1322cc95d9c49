"""The memory of an evaluation as it goes on, and of making a class map with many classes.

    python benchmarks/memory.py evaluation [--images 10000]
    python benchmarks/memory.py class-map [--whole]

`evaluation` runs a small model over a folder of that many small images, with the metrics mIoU, boundary, per-image and
calibration, and tells the process's memory after every tenth of them. `class-map` tells the peak of taking 150 classes
at 1024x2048 from logits at a quarter of that size; with `--whole` all logits are resized first.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

METRICS = ["mIoU", "boundary", "per-image", "calibration"]


def resident() -> float:
    """MiB that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak() -> float:
    """MiB that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def folder_of_images(root: Path, count: int) -> None:
    """Images and labels of 32x40 pixels; a hundred different ones under `count` names."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir()
    for index in range(count):
        if index < 100:
            label = np.repeat(random.integers(0, 3, (32, 1)), 40, 1).astype(np.uint8)
            image = 80 * label[..., None] + random.integers(0, 60, (32, 40, 3)).astype(np.uint8)
            cv2.imwrite(str(root / "images" / f"{index:06d}.png"), image)
            cv2.imwrite(str(root / "labels" / f"{index:06d}.png"), label)
        else:
            for name in ("images", "labels"):
                os.link(root / name / f"{index % 100:06d}.png", root / name / f"{index:06d}.png")


def config(root: Path) -> dict[str, Any]:
    """A test set and a network of a few channels."""
    backbone = {"type": "UNet", "base_channels": 4, "num_stages": 2, "strides": [1, 1], "downsamples": [True]}
    backbone |= {"enc_num_convs": [1, 1], "dec_num_convs": [1], "enc_dilations": [1, 1], "dec_dilations": [1]}
    head = {"type": "FCNHead", "in_channels": 4, "in_index": 1, "channels": 4, "num_convs": 1, "num_classes": 3}
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "metainfo": {"classes": ["a", "b", "c"]},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    model = {"type": "EncoderDecoder", "backbone": backbone, "decode_head": head}
    return {"model": model, "test_dataloader": {"batch_size": 1, "num_workers": 0, "dataset": dataset}}


def evaluation(count: int) -> None:
    """Print the memory at every tenth of an evaluation."""
    import torch

    import terrazzo as tz

    with tempfile.TemporaryDirectory() as folder:
        folder_of_images(Path(folder), count)
        settings = config(Path(folder))
        weights = Path(folder) / "x.pth"
        torch.save(tz.build_model(settings["model"]).state_dict(), weights)

        def on_progress(done: int, total: int) -> None:
            if done % (total // 10) == 0:
                print(f"{done} images: {resident():.1f} MiB", flush=True)

        tz.evaluate(settings, weights, metrics=METRICS, device="cpu", on_progress=on_progress)


def class_map(whole: bool) -> float:
    """MiB at the peak, the small logits included."""
    import torch
    import torch.nn.functional as F

    from terrazzo.inference import argmax

    with torch.inference_mode():
        argmax.class_map(
            torch.randn(150, 16, 32), argmax.LogitsGeometry((16, 32), (64, 128), (64, 128))
        )  # torch's set-up
        before = peak()
        logits = F.interpolate(torch.randn(1, 150, 8, 16), (256, 512), mode="bicubic")
        if whole:
            F.interpolate(logits, (1024, 2048), mode="bilinear").argmax(1)
        else:
            argmax.class_map(logits[0], argmax.LogitsGeometry((256, 512), (1024, 2048), (1024, 2048)))
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluation", "class-map"])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    if args.what == "class-map":
        print(f"{class_map(args.whole):.0f} MiB")
        return
    evaluation(args.images)


if __name__ == "__main__":
    main()
