"""`terrazzo runs`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from terrazzo.cli.common import print_table

SORTS: dict[str, Callable[[Any], Any]] = {  # name -> the key that runs are sorted by
    "best": lambda run: (run.best is None, -(run.best or 0) if not run.lower_is_better else run.best or 0),
    "name": lambda run: run.name,
    "step": lambda run: -run.step,
    "time": lambda run: -(run.seconds or 0),
    "started": lambda run: -datetime.fromisoformat(run.started).timestamp() if run.started else 0,
    "state": lambda run: run.state,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", default=["runs"], metavar="DIR", help="folders of runs (default: runs)")
    parser.add_argument("--sort", choices=list(SORTS), default="best", help="show the best, longest, newest ... first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    from terrazzo.training.monitoring.runs import differences, open_runs

    runs = sorted(open_runs(args.folders), key=SORTS[args.sort])
    found = differences(runs)
    if args.json:
        print(json.dumps({"runs": [summary(run) for run in runs], "differences": found}, indent=1, default=str))
        return 0
    show_list(runs)
    print_differences([run.name for run in runs], found)
    return 0


def summary(run: Any) -> dict[str, Any]:
    """A run without its config and records."""
    kept = ("name", "state", "step", "total", "metric", "best", "best_step", "seconds", "started")
    return {"folder": str(run.folder), **{key: getattr(run, key) for key in kept}}


def show_list(runs: Sequence[Any]) -> None:
    """Print one line for each run."""
    from terrazzo.training.monitoring.log import duration

    rows = [
        (
            run.name,
            run.state,
            f"{run.step}/{run.total}" if run.total else str(run.step),
            "-" if run.best is None else f"{run.metric} {run.best:.2f}",
            "-" if run.best is None else str(run.best_step),
            "-" if run.seconds is None else duration(run.seconds),
            (run.started or "-")[:16].replace("T", " "),
        )
        for run in runs
    ]
    columns = ("run", "state", "step", "best", "at step", "time", "started")
    print_table(columns, rows, numbers=columns[2:-1])


def print_differences(names: Sequence[str], differences: dict[str, list[Any]]) -> None:
    """Print each key that differs with its values and the runs that have them."""
    if len(names) > 1:
        print("configs differ in:" if differences else "all configs are the same")
    for key, values in differences.items():
        print(f"  {key}")
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        for text in dict.fromkeys(texts):
            own = [name for name, value in zip(names, texts, strict=True) if value == text]
            print(f"    {text}: {', '.join(own)}")
