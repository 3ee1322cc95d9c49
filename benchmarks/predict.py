"""From an image to its class map: terrazzo and MMSegmentation, step by step in turn.

    python benchmarks/predict.py --peer-python PEER/bin/python [--models fast-scnn] [--pairs 15] [--threads 1]

A step takes a raw 512x1024 image to the classes of the 1024x2048 pixels it was made from, as in testing: normalising,
the network, and the logits' way to classes. Both sides are processes of their own with the same threads, weights
(seeded by name) and image; who goes first alternates. The ratio is the median over the pairs of the peer's time by
terrazzo's. How long ours takes after the network depends on how much of the image lies on borders between classes, so
that share is told.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from typing import Any

import numpy as np
from side import Peer, Terrazzo, fill
from turns import answer, in_turn, ratio

MODELS = {
    "fast-scnn": "fast_scnn_8xb4-160k_cityscapes-512x1024",
    "segformer-b0": "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024",
}
INPUT, OWN = (512, 1024), (1024, 2048)


def picture() -> np.ndarray:
    """A smooth RGB image (3, H, W) with some objects."""
    random = np.random.Generator(np.random.PCG64(0))
    rows, columns = np.mgrid[: INPUT[0], : INPUT[1]]
    image = np.stack([127 + 90 * np.sin(rows / (90 + 30 * k)) * np.cos(columns / (140 - 25 * k)) for k in range(3)])
    for _ in range(40):
        top, left, height, width = random.integers((0, 0, 10, 10), (480, 960, 120, 160))
        image[:, top : top + height, left : left + width] = random.integers(0, 256, (3, 1, 1))
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def seeded(model: Any) -> Any:
    fill(model)
    return model.eval()


def terrazzo_step(recipe: str) -> Any:
    import torch

    from terrazzo.inference.modes import infer
    from terrazzo.inference.predict import predict_batch
    from terrazzo.sample import Batch, Sample

    model: Any = seeded(Terrazzo().build(recipe))
    batch = Batch(torch.from_numpy(picture())[None], {}, [Sample(original_size=OWN)], [INPUT])

    def step() -> dict[str, Any]:
        labels = predict_batch([model], batch)[0].labels()
        return described(labels.numpy())

    def network() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            infer(model, model.preprocess.pad_for_test(model.preprocess(batch.image)))
        return time.perf_counter() - started

    seconds = min(network() for _ in range(3))
    return lambda: step() | {"network": seconds}


def peer_step(recipe: str) -> Any:
    import torch
    from mmseg.structures import SegDataSample

    peer = Peer()
    model: Any = seeded(peer.build(recipe))
    bgr = torch.from_numpy(picture()[::-1].copy())
    sample = SegDataSample(metainfo={"ori_shape": OWN, "img_shape": INPUT, "pad_shape": INPUT, "flip": False})

    def step() -> dict[str, Any]:
        with torch.no_grad():
            (result,) = model.test_step({"inputs": [bgr], "data_samples": [sample.clone()]})
        return described(result.pred_sem_seg.data[0].numpy())

    return step


def described(labels: np.ndarray) -> dict[str, Any]:
    """What tells one class map from another, and how much of it lies beside another class."""
    border = np.zeros(labels.shape, bool)
    border[1:] |= labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return {"counts": np.bincount(labels.ravel(), minlength=19).tolist(), "border": float(border.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with MMSegmentation 1.x (default: no peer)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side, name = args.side
        answer(lambda: (terrazzo_step if side == "terrazzo" else peer_step)(MODELS[name]))
        return
    pythons = {"terrazzo": sys.executable} | ({"mmseg": args.peer_python} if args.peer_python else {})
    for name in args.models:
        commands = {side: [python, "-W", "ignore", __file__, "--side", side, name] for side, python in pythons.items()}
        times = in_turn(commands, args.pairs, args.threads)
        ours = times["terrazzo"]["result"]
        words = [f"{side} {1000 * median(part['wall']):.0f} ms" for side, part in times.items()]
        words += [f"of ours the network {1000 * ours['network']:.0f} ms", f"{100 * ours['border']:.1f} % on borders"]
        if args.peer_python:
            gaps = np.abs(np.subtract(ours["counts"], times["mmseg"]["result"]["counts"])).sum()
            words += [f"ratio {ratio(times):.2f} (wall), {ratio(times, 'cpu'):.2f} (cpu)"]
            words += [f"{gaps} of {OWN[0] * OWN[1]} pixels differ"]
        print(f"{name}: {', '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
