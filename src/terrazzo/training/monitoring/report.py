"""The page of one run: its scores, curves, classes and newest pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from terrazzo.training.monitoring.runs import PastRun, read_run
from terrazzo.viz.chart import line_chart
from terrazzo.viz.report import write_report

NAME = "report.html"


def write_run_report(folder: Path) -> Path:
    """Write `report.html` into a work dir and return its path. Raises UserError where it cannot be written."""
    run = read_run(folder, folder.resolve().name)
    validations = [record for record in run.records if record["mode"] == "val"]
    shown = next((record for record in validations if record["step"] == run.best_step), (validations or [{}])[-1])
    table = [{"class": name, **scores} for name, scores in (shown.get("per_class") or {}).items()]
    if table:
        means = {"IoU": shown.get("mIoU"), "Acc": shown.get("mAcc")}
        table.append({"class": "mean", **{name: value for name, value in means.items() if name in table[0]}})
    model = run.config.get("model") or {}
    parts = [(model.get(part) or {}) for part in ("backbone", "decode_head")]
    names = [part["type"] for part in parts if isinstance(part, dict) and "type" in part]
    return write_report(
        folder / NAME,
        run.name,
        summary_of(run),
        run_curves(run),
        table,
        [[(f"step {step}", picture)] for step, picture in newest_picture(folder)],
        subtitle=" and ".join(names) + (f", scores of step {shown['step']}" if shown else ""),
    )


def summary_of(run: PastRun) -> list[tuple[str, str]]:
    """The outcome of a run, as names and values."""
    speeds = [speed for _, speed in run.points("train", "images_per_second")]
    lines = [
        (f"best {run.metric}", None if run.best is None else f"{run.best:.2f} at step {run.best_step}"),
        ("state", run.state),
        ("steps", f"{run.step} of {run.total}" if run.total else str(run.step)),
        ("time", None if run.seconds is None else f"{run.seconds / 60:.1f} min"),
        ("images a second", f"{np.median(speeds):.3g}" if speeds else None),
    ]
    return [(name, value) for name, value in lines if value is not None]


def run_curves(run: PastRun) -> list[str]:
    """Charts of the loss and of the score that decides which weights are best."""
    losses = {"training": run.points("train", "loss"), "validation": run.points("val", "loss")}
    charts = [line_chart(losses, "Loss", "step", "loss")]
    if scores := run.points("val", run.metric):
        charts.append(line_chart({"validation": scores}, run.metric, "step", run.metric))
    return charts


def newest_picture(folder: Path) -> list[tuple[int, np.ndarray]]:
    """The step and the RGB picture of the last validation, if it has drawn one."""
    paths = sorted((folder / "pictures").glob("step_*.png"))
    picture = cv2.imdecode(np.fromfile(paths[-1], np.uint8), cv2.IMREAD_COLOR) if paths else None
    return [] if picture is None else [(int(paths[-1].stem.partition("_")[2]), picture[..., ::-1])]
