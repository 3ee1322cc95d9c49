"""`terrazzo log`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError

DEFAULT_KEYS = ["loss", "mIoU", "lr"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plot = actions.add_parser("plot", help="plot the curves of one or several runs, each in its own colour")
    plot.add_argument("runs", nargs="+", metavar="RUN", help="work dirs, or folders of work dirs")
    plot.add_argument(
        "--keys",
        nargs="+",
        metavar="KEY",
        help="keys of metrics.jsonl: loss, val.loss, mIoU, IoU.road, seconds ... (default: loss mIoU lr)",
    )
    plot.add_argument("--out", default="curves.png", metavar="FILE", help="a .png or .html file (default curves.png)")


def run(args: argparse.Namespace) -> int:
    from terrazzo.system.files import make_folder, write_atomically
    from terrazzo.training.monitoring.runs import chosen_keys, open_runs
    from terrazzo.viz.curves import Curves, write_page, write_picture

    path = Path(args.out)
    if path.suffix.lower() not in (".png", ".html"):
        raise UserError(f"--out {path}: the name must end in .png or .html")
    runs = open_runs(args.runs)
    known = {key for run in runs for record in run.records for key in record}
    keys = args.keys or [key for key in DEFAULT_KEYS if key in known]
    if not keys:
        raise UserError(f"{', '.join(args.runs)}: nothing has been logged yet")
    charts = [
        Curves(f"{key} ({mode})", key, {run.name: run.points(mode, key) for run in runs})
        for mode, key in chosen_keys(runs, keys)
    ]
    make_folder(path.parent)
    if path.suffix.lower() == ".png":
        write_atomically(path, lambda file: write_picture(file, charts))
    else:
        summary = [(run.name, result_of(run)) for run in runs]
        write_atomically(path, lambda file: write_page(file, charts, summary))
    print(f"{len(charts)} charts of {len(runs)} run{'s' * (len(runs) > 1)}: {path}")
    return 0


def result_of(run: Any) -> str:
    """A run's best score as `mIoU 61.20 at step 900`, or the state of a run without one."""
    if run.best is None:
        return f"{run.state}, step {run.step}"
    return f"{run.metric} {run.best:.2f} at step {run.best_step}"
