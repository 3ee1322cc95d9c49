"""Forward passes and training steps of terrazzo and of MMSegmentation, step by step in turn.

    python benchmarks/pairs.py --peer-python PEER/bin/python [--models segformer-b0 ...] [--pairs 15] [--threads 1]

Both sides are processes of their own with the same threads, weights and input; a pair is one step of each, and who goes
first alternates. The ratio is the median over the pairs of the peer's time by terrazzo's: above 1, terrazzo is faster.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from turns import Side

MODELS = {
    "pspnet-r50": "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024",
    "deeplabv3plus-r18": "deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024",
    "upernet-swin-t": "swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512",
    "segformer-b0": "segformer_mit-b0_8xb2-160k_ade20k-512x512",
    "segmenter-s": "segmenter_vit-s_mask_8xb1-160k_ade20k-512x512",
    "mask2former-r50": "mask2former_r50_8xb2-90k_cityscapes-512x1024",
    "fast-scnn": "fast_scnn_8xb4-160k_cityscapes-512x1024",
    "bisenetv2": "bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024",
    "unet": "unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024",
    "segnext-t": "segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512",
}
TRANSFORMERS = ("upernet-swin-t", "segformer-b0", "segmenter-s", "mask2former-r50")
SHAPES = {"forward": "1x3x512x512", "train": "2x3x256x512"}


def start(python: str, name: str, recipe: str, task: str, shape: str, threads: int) -> Side:
    """The process of one side, ready to do its steps."""
    script = str(Path(__file__).with_name("side.py"))
    return Side([python, "-W", "ignore", script, name, recipe, task, shape, str(threads)], threads)


def compare(recipe: str, task: str, shape: str, peer_python: str | None, pairs: int, threads: int) -> dict[str, Any]:
    """Times of `pairs` pairs after one that is not counted; without a peer, of terrazzo alone."""
    pythons = {"terrazzo": sys.executable} | ({"mmseg": peer_python} if peer_python else {})
    sides = {name: start(python, name, recipe, task, shape, threads) for name, python in pythons.items()}
    try:
        sizes = {name: side.first["ready"] for name, side in sides.items()}
        first = {name: side.step() for name, side in sides.items()}
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for index in range(pairs):
            for name in list(sides)[:: 1 if index % 2 else -1]:
                answers[name].append(sides[name].step())
    finally:
        for side in sides.values():
            side.end()
    times = {name: {clock: [a[clock] for a in steps] for clock in ("wall", "cpu")} for name, steps in answers.items()}
    result = {"recipe": recipe, "task": task, "shape": shape, "threads": threads, "parameters": sizes, "times": times}
    if peer_python:
        ours, theirs = first["terrazzo"], first["mmseg"]
        scale = max(theirs["deviation"], abs(theirs["values"][0]) if task == "train" else 0.0)
        gaps = [abs(a - b) for a, b in zip(ours["values"], theirs["values"], strict=True)]
        result["difference"] = max(gaps) / scale
        for clock in ("wall", "cpu"):
            mine, other = times["terrazzo"][clock], times["mmseg"][clock]
            result[f"ratio_{clock}"] = median(b / a for a, b in zip(mine, other, strict=True))
    return result


def line(name: str, result: dict[str, Any]) -> str:
    """One model and task in a row of the table."""
    columns = [f"{median(times['wall']):7.3f} s" for times in result["times"].values()]
    if "ratio_wall" in result:
        columns += [f"{result['ratio_wall']:.2f}", f"{result['ratio_cpu']:.2f}", f"{result['difference']:.0e}"]
    return "| " + " | ".join([f"{name:18}", f"{result['task']:7}", *columns]) + " |"


def summary(results: dict[str, dict[str, Any]]) -> str:
    """Geometric means of the ratios, of all and of the transformers."""
    lines = []
    for clock in ("wall", "cpu"):
        ratios = {key: result[f"ratio_{clock}"] for key, result in results.items() if f"ratio_{clock}" in result}
        chosen = [ratio for key, ratio in ratios.items() if key.rpartition(" ")[0] in TRANSFORMERS]
        groups = {"all": list(ratios.values()), "transformers": chosen}
        means = [f"{what} {geometric_mean(group):.2f}" for what, group in groups.items() if group]
        if means:
            lines.append(f"geometric mean ({clock}): {', '.join(means)}; lowest {min(groups['all']):.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with MMSegmentation 1.x (default: no peer)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help=f"of {', '.join(MODELS)}, or recipe names")
    parser.add_argument("--tasks", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--shape", help="N x C x H x W instead of the tasks' own")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file, to which the results are added")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    columns = ["model", "task", "terrazzo", "MMSegmentation", "ratio (wall)", "ratio (cpu)", "difference"]
    columns = columns if args.peer_python else columns[:3]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in args.models:
        for task in args.tasks:
            shape = args.shape or SHAPES[task]
            result = compare(MODELS.get(name, name), task, shape, args.peer_python, args.pairs, args.threads)
            results[f"{name} {task}"] = result
            print(line(name, result), flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1))
    print(summary(results))


if __name__ == "__main__":
    main()
