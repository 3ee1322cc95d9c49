"""The demo: draw street scenes, train a small network on them, test it, and write a page with the results."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from terrazzo.demo.config import demo_config
from terrazzo.demo.dataset import write_scenes
from terrazzo.demo.scenes import CLASSES, PALETTE
from terrazzo.errors import UserError
from terrazzo.evaluation.evaluate import evaluate
from terrazzo.inference.load import load
from terrazzo.inference.segmenter import Prediction, Segmenter
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.painting import colour_map
from terrazzo.system.terminal import Console
from terrazzo.training.monitoring.log import class_table, duration, progress_bar, summary
from terrazzo.training.monitoring.report import run_curves
from terrazzo.training.monitoring.runs import read_run
from terrazzo.training.train import train
from terrazzo.viz import write_report

ITERATIONS = 1400
MARK = "demo.json"  # the file that marks a folder as a demo's and records which scenes it holds
OUTPUTS = ("log.txt", "metrics.jsonl", "best.safetensors", "last.safetensors", "report.html")
PICTURES = 6


@dataclass(frozen=True)
class Scenes:
    """The demo's dataset: the number of scenes and their size."""

    train: int = 480
    val: int = 32
    test: int = 64
    height: int = 160
    width: int = 224
    seed: int = 0


@dataclass(frozen=True)
class Demo:
    """The results of a demo."""

    report: Path
    weights: Path
    metrics: dict[str, Any]  # on the test scenes
    seconds: float


def run_demo(
    work_dir: str | Path = "demo",
    seed: int = 0,
    device: str | None = None,
    iterations: int = ITERATIONS,
    scenes: Scenes | None = None,
) -> Demo:
    """Draw, train, test and report in `work_dir`; reuse the scenes that an earlier demo drew there.

    Raise UserError for a folder that holds files other than a demo's.
    """
    started = time.monotonic()
    console = Console(soft_wrap=True)
    scenes = scenes or Scenes(seed=seed)
    folder = make_folder(Path(work_dir))
    data = folder / "data"
    drawn = clear(folder, scenes)

    heading(console, 1, f"{scenes.train} street scenes to learn from, {scenes.val} to validate, {scenes.test} to test")
    if drawn:
        console.print(f"reusing those in {data}")
    else:
        write_mark(folder, scenes, is_whole=False)
        draw(console, data, scenes)
        write_mark(folder, scenes, is_whole=True)
        console.print(f"images and labels: {data}")

    heading(console, 2, f"train a small network on them, {iterations} steps")
    crop = scenes.height * 4 // 5, scenes.width * 5 // 7
    config = demo_config(data.resolve(), iterations, seed, crop)
    outcome = train(config, work_dir=folder, device=device, overwrite=True)  # of an earlier demo
    if not outcome.finished:
        raise KeyboardInterrupt
    weights = outcome.best or outcome.last

    heading(console, 3, "test it on scenes that it has never seen")
    result = test_network(console, config, weights, device)

    heading(console, 4, "write the report")
    segmenter = load(weights, device=device)
    report = write_page(folder, scenes, segmenter, result, time.monotonic() - started)
    seconds = time.monotonic() - started
    console.print(f"report: {report}")
    console.print(f"\nmIoU {result['mIoU']:.2f} on {scenes.test} test scenes, after {duration(seconds)}")
    console.print(what_next(folder, weights))
    return Demo(report, weights, result, seconds)


def heading(console: Console, number: int, text: str) -> None:
    """Print the number of the next step and its task."""
    console.print(f"\n{number}/4  {text}", style="bold")


def clear(folder: Path, scenes: Scenes) -> bool:
    """Remove the files of an earlier demo; return True where it drew the same scenes, which then stay.

    Raise UserError for a folder with files of these names that no demo wrote.
    """
    mark = folder / MARK
    if not mark.exists():
        foreign = [name for name in ("data", *OUTPUTS) if (folder / name).exists()]
        if foreign:
            raise UserError(f"{folder} holds {', '.join(foreign)}, which no demo wrote: choose another --work-dir")
        return False
    for name in OUTPUTS:
        (folder / name).unlink(missing_ok=True)
    earlier = json.loads(mark.read_text(encoding="utf-8"))
    is_whole = earlier.pop("is_whole", True)
    if earlier == asdict(scenes):
        return bool(is_whole)
    write_mark(folder, Scenes(**earlier), is_whole=False)
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            for number in range(earlier[split]):
                (folder / "data" / kind / split / f"{number:04d}.png").unlink(missing_ok=True)
    return False


def write_mark(folder: Path, scenes: Scenes, is_whole: bool) -> None:
    """Mark a folder as a demo's, with the scenes that it holds, or will hold."""
    write_whole(folder / MARK, json.dumps(asdict(scenes) | {"is_whole": is_whole}))


def draw(console: Console, data: Path, scenes: Scenes) -> None:
    """Draw the scenes on all cores, under a progress bar."""
    counts = {"train": scenes.train, "val": scenes.val, "test": scenes.test}
    size, processes = (scenes.height, scenes.width), min(8, os.cpu_count() or 1)
    with progress_bar(console) as bar:
        task = bar.add_task("draw", total=sum(counts.values()))
        for done in write_scenes(data, counts, size, scenes.seed, processes):
            bar.update(task, completed=done)


def test_network(console: Console, config: dict[str, Any], weights: Path, device: str | None) -> dict[str, Any]:
    """Score the trained weights on the test scenes and print a table."""
    with progress_bar(console) as bar:
        task = bar.add_task("test", total=None)
        result = evaluate(
            config,
            weights,
            device=device,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(class_table(result))
    console.print(summary(result))
    return result


def write_page(folder: Path, scenes: Scenes, segmenter: Segmenter, result: dict[str, Any], seconds: float) -> Path:
    """Write `report.html`: results, curves, a table of classes, and scenes beside their labels and predictions."""
    chosen = [(image, read_label(label)) for image, label in richest(folder / "data", scenes.test)]
    segmenter(chosen[0][0])  # the first call warms up
    begun = time.monotonic()
    predictions: list[Prediction] = [segmenter(image) for image, _ in chosen]
    rate = len(chosen) / (time.monotonic() - begun)
    pictures = [pictures_of(prediction, label) for prediction, (_, label) in zip(predictions, chosen, strict=True)]
    parameters = sum(parameter.numel() for parameter in segmenter.model.parameters())
    table = [{"class": name, **scores} for name, scores in result["per_class"].items()]
    return write_report(
        folder / "report.html",
        "Street scenes, learned in minutes",
        [
            ("mIoU on test scenes", f"{result['mIoU']:.1f}"),
            ("correct pixels", f"{result['aAcc']:.1f} %"),
            ("time, drawing included", duration(seconds)),
            ("parameters", f"{parameters / 1e6:.2f} M"),
            ("images a second", f"{rate:.0f} on {segmenter.device}"),
        ],
        run_curves(read_run(folder, "demo")),
        [*table, {"class": "mean", "IoU": result["mIoU"], "Acc": result["mAcc"]}],
        pictures,
        subtitle=f"terrazzo demo: a network trained from scratch on {scenes.train} drawn scenes of "
        f"{scenes.height}x{scenes.width} pixels (seed {scenes.seed}), tested on {scenes.test} others.",
        palette=dict(zip(CLASSES, PALETTE, strict=True)),
    )


def richest(data: Path, count: int) -> list[tuple[Path, Path]]:
    """Return the image and label paths of the test scenes that show the most classes."""
    pairs = [(data / "images/test" / f"{n:04d}.png", data / "labels/test" / f"{n:04d}.png") for n in range(count)]
    pairs.sort(key=lambda pair: -len(np.unique(read_label(pair[1]))))
    return pairs[:PICTURES]


def read_label(path: Path) -> np.ndarray:
    """Return a class map (H, W) as stored."""
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))


def pictures_of(prediction: Prediction, label: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return image, label and prediction with their captions."""
    counted = label != 255
    correct = 100 * float((prediction.labels == label)[counted].mean())
    return [
        ("image", prediction.image),
        ("label (black is ignored)", colour_map(label, PALETTE)),
        ("prediction", colour_map(prediction.labels, PALETTE)),
        (f"prediction over the image, {correct:.1f} % correct", prediction.overlay(0.55)),
    ]


def what_next(folder: Path, weights: Path) -> str:
    """Return the commands to try next, and the shortest config for the user's own data."""
    return f"""
Next:
  look at the curves and pictures      open {folder / "report.html"} in a browser
  segment your own image               terrazzo predict IMAGE --model {weights}
  score the network again              terrazzo test {folder / "config.yaml"} {weights}
  train on your own data               terrazzo train mine.yaml, where mine.yaml is

    recipe: bisenetv2
    data:
      root: my_data                    # with images/train, images/val, labels/train and labels/val below it
      classes: [road, car, person]     # in the order of the label values 0, 1, 2
    crop: 512x512                      # height x width
    batch: 8
    iterations: 20000"""
