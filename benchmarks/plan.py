"""Compare `terrazzo plan` with the default of `terrazzo data init`, at the same budget of computing time.

    python benchmarks/plan.py --budget 90s --out runs/plan data/street data/lesions configs/camvid.yaml

Draws data sets that it does not find: `scenes` (street scenes) and `lesions` (few, small spots). A config is trained,
too, on its own data and for as many steps as the budget allows.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

import terrazzo as tz
from terrazzo.cli.common import budget
from terrazzo.data.discovery.draft import Draft, draft_of
from terrazzo.data.discovery.propose import Proposal, crop_length
from terrazzo.demo.dataset import write_scenes
from terrazzo.system.devices import choose_device
from terrazzo.training.planning.plan import STEPS_SHARE
from terrazzo.training.planning.run import write_plan
from terrazzo.training.speed import measure_step, rounded
from terrazzo.transforms.decode import read_size

SIZE = 256  # of a picture with lesions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, help="folders of images and labels, and hand-made configs")
    parser.add_argument("--budget", type=budget, default=90.0, help="of each training (default: 90s)")
    parser.add_argument("--only", choices=list(CONFIGS), help="one of the configs alone")
    parser.add_argument("--out", type=Path, default=Path("runs/plan"), help="folder of configs and runs")
    args = parser.parse_args()
    print(f"| data | config | steps | CPU seconds | mIoU after {rounded(args.budget)} | classes |")
    print("|---|---|--:|--:|--:|---|")
    for source in args.sources:
        draw_missing(source)
        for name in [args.only] if args.only else CONFIGS:
            if name == "hand-made" and not source.is_file():
                continue
            target = args.out / f"{source.resolve().stem}-{name.replace(' ', '-')}.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            CONFIGS[name](source, target, args.budget)
            started = time.process_time()
            run = tz.train(target, work_dir=target.with_suffix(""), overwrite=True, quiet=True)
            scores = tz.evaluate(run.work_dir, run.best or run.last)
            steps = tz.load_config(target)["train_cfg"]["max_iters"]
            classes = ", ".join(f"{name} {values['IoU'] or 0:.1f}" for name, values in scores["per_class"].items())
            seconds = time.process_time() - started
            print(
                f"| {source.stem} | {name} | {steps} | {seconds:.0f} | {scores['mIoU']:.2f} | {classes} |", flush=True
            )


def write_default(source: Path, target: Path, seconds: float) -> None:
    """The proposal of `terrazzo data init`, with as many steps as the budget allows."""
    proposal: Draft = Proposal(source, "fastscnn").with_length() if source.is_dir() else default_for(source)
    proposal.set("iterations", 100)
    steps = affordable(proposal.form(), seconds)
    proposal.set("iterations", steps, "as many as the budget allows")
    proposal.set("val_interval", math.ceil(steps / 10))
    proposal.set("workers", 1)
    target.write_text(proposal.text(target, []), encoding="utf-8")


def default_for(config: Path) -> Draft:
    """What `terrazzo data init` proposes, for the data of a config."""
    draft = draft_of(config)
    train = draft.open("train")
    height, width = read_size(train.pairs[0][0])
    draft.values |= {"recipe": "fastscnn", "crop": f"{crop_length(height)}x{crop_length(width)}"}
    draft.values["batch"] = max(2, min(8, len(train)))
    return draft


def write_planned(source: Path, target: Path, seconds: float) -> None:
    """The plan for the budget."""
    write_plan(source, target, seconds)


def write_given(source: Path, target: Path, seconds: float) -> None:
    """A config as it is, with as many steps as the budget allows."""
    steps = affordable(source, seconds)
    values = {"_base_": str(source.resolve()), "iterations": steps, "val_interval": math.ceil(steps / 10), "workers": 1}
    target.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def affordable(config: Any, seconds: float) -> int:
    """The steps of a config that the budget allows, by the measured seconds of one."""
    config = tz.load_config(config)
    cost = measure_step(config, choose_device())
    return int(STEPS_SHARE * seconds / (cost.seconds * config["train_dataloader"]["batch_size"]))


CONFIGS = {"data init": write_default, "plan": write_planned, "hand-made": write_given}


def draw_missing(folder: Path) -> None:
    """Draw a data set where there is none of the name."""
    if folder.exists():
        return
    if folder.name == "scenes":
        list(write_scenes(folder, {"train": 120, "val": 32}, (160, 224)))
        return
    if folder.name != "lesions":
        raise SystemExit(f"there is no folder {folder}")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 24)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            image, label = draw_lesions(rng)
            cv2.imwrite(str(folder / "images" / split / f"{index:03d}.png"), image[..., ::-1])
            cv2.imwrite(str(folder / "labels" / split / f"{index:03d}.png"), label)
    (folder / "classes.txt").write_text("background\nlesion\n", encoding="utf-8")


def draw_lesions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture of tissue with one to three reddish spots, its lesions, and others that are none; and its label."""
    image = np.full((SIZE, SIZE, 3), (110.0, 90.0, 80.0))
    for sigma, strength in ((12, (18, 14, 10)), (1.5, (6, 6, 6))):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)), (0, 0), sigma)
        image += noise[..., None] / noise.std() * np.array(strength)
    label = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(4, 9)):
        colour = (30, 30, 30) if rng.random() < 0.5 else (-30, -25, 5)
        image += soft(spot(rng, 3, 8)) * np.array(colour)
    for _ in range(rng.integers(1, 4)):
        lesion = spot(rng, 4, 7)
        image += soft(lesion) * np.array((45, -15, -15))
        label |= lesion
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), label


def spot(rng: np.random.Generator, least: int, most: int) -> np.ndarray:
    """A mask (H, W) of an ellipse somewhere."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    x, y = rng.integers(12, SIZE - 12, 2).tolist()
    radius = int(rng.integers(least, most))
    axes = radius, max(2, int(radius * rng.uniform(0.6, 1)))
    return cv2.ellipse(mask, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)


def soft(mask: np.ndarray) -> np.ndarray:
    """The mask with a soft edge (H, W, 1)."""
    return cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 1)[..., None]


if __name__ == "__main__":
    main()
