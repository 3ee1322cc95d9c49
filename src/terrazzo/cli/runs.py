"""`terrazzo runs`."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from terrazzo.cli.common import print_table

MOST_KEYS = 3  # of a section that are printed with their values
COLUMNS = 80  # that the table fits into

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
    about = "keys in which the configs differ: counted where a section has many, all, or none"
    parser.add_argument("--differences", choices=["sections", "all", "none"], default="sections", help=about)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    from terrazzo.training.monitoring.runs import REPEATS, differences, open_runs, repeats

    runs = sorted(open_runs(args.folders), key=SORTS[args.sort])
    found = differences(runs)
    if args.json:
        print(json.dumps({"runs": [summary(run) for run in runs], "differences": found}, indent=1, default=str))
        return 0
    show_list(runs)
    for kind in REPEATS:
        for group in repeats(runs, kind):
            print(repeat_summary(group, kind))
    if args.differences != "none":
        print_differences([run.name for run in runs], found, args.differences == "all")
    return 0


def summary(run: Any) -> dict[str, Any]:
    """A run without its config and records."""
    kept = (
        "name",
        "state",
        "step",
        "total",
        "metric",
        "best",
        "best_step",
        "seconds",
        "started",
        "recipe",
        "parameters",
        "pace",
    )
    return {"folder": str(run.folder), **{key: getattr(run, key) for key in kept}}


def show_list(runs: Sequence[Any]) -> None:
    """Print one line for each run."""
    from terrazzo.training.monitoring.log import duration

    rows = [
        (
            run.name,
            (run.recipe or "-").partition("_")[0][:9],
            run.state,
            f"{run.step}/{run.total}" if run.total else str(run.step),
            "-" if run.best is None else f"{run.metric} {run.best:.2f}",
            "-" if run.parameters is None else f"{run.parameters / 1e6:.1f}",
            "-" if run.pace is None else f"{run.pace:.2f}",
            "-" if run.seconds is None else duration(run.seconds),
        )
        for run in runs
    ]
    columns = ("run", "recipe", "state", "step", "best", "M", "s/it", "time")
    rest = sum(max(len(row[index]) for row in (columns, *rows)) + 2 for index in range(1, len(columns)))
    rows = [(shortened(name, max(10, COLUMNS - rest)), *facts) for name, *facts in rows]
    print_table(columns, rows, numbers=columns[3:])
    print("M: million parameters, s/it: seconds of an iteration")


def shortened(text: str, width: int) -> str:
    """A text of at most `width` characters: its end, which tells runs apart, is kept."""
    return text if len(text) <= width else "\u2026" + text[1 - width :]


def repeat_summary(runs: Sequence[Any], kind: str) -> str:
    """`mIoU 61.20 +- 0.45 (mean and deviation of 3 seeds): a, b, c`; `kind` may also be folds."""
    scores = [run.best for run in runs]
    names = shortened(", ".join(run.name for run in runs), 40)
    spread = f"{statistics.mean(scores):.2f} \u00b1 {statistics.stdev(scores):.2f}"
    return f"{runs[0].metric} {spread} (mean and deviation, {len(runs)} {kind}): {names}"


def print_differences(names: Sequence[str], differences: dict[str, list[Any]], whole: bool = False) -> None:
    """Print each key that differs with its values and the runs that have them; of a long section the number."""
    if len(names) > 1:
        print("configs differ in:" if differences else "all configs are the same")
    sections: dict[str, list[str]] = {}
    for key in differences:
        sections.setdefault(key.partition(".")[0], []).append(key)
    for section, keys in sections.items():
        if len(keys) > MOST_KEYS and not whole:
            print(f"  {section}: {len(keys)} keys (--differences all shows them)")
            continue
        for key in keys:
            print(f"  {key}")
            texts = [value if isinstance(value, str) else json.dumps(value) for value in differences[key]]
            for text in dict.fromkeys(texts):
                own = [name for name, value in zip(names, texts, strict=True) if value == text]
                line = f"    {text}: {', '.join(own)}"
                print(line if whole or len(line) <= COLUMNS else line[: COLUMNS - 1] + "\u2026")
