"""Runs in their work dirs: the record of a running one, and curves, best scores and configs of past ones."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import terrazzo
from terrazzo.config.reading.markup import read_markup
from terrazzo.config.sections import SECTIONS
from terrazzo.errors import UserError, nearest
from terrazzo.system.files import write_whole
from terrazzo.system.processes import beginning, is_alive
from terrazzo.system.text import read_text, short_names
from terrazzo.training.monitoring.trackers import flat

NAME = "run.json"
DEEPEST = 4  # folders below one that is searched for runs
NOT_TRAINED = ("work_dir", "resume")  # sections that do not describe what was trained
ABSENT = "not set"
# keys in which alone runs of one config differ
REPEATS = {
    "seeds": ("randomness.seed",),
    "folds": ("train_dataloader.dataset.holdout.fold", "val_dataloader.dataset.holdout.fold"),
}


class RunRecord:
    """The record of a run, `run.json`, which claims its folder for this process.

    The record of an earlier run in the folder is kept in it until the first step, and restored if there is none.
    """

    def __init__(self, work_dir: Path) -> None:
        self.path = work_dir / NAME
        self.earlier = read_record(work_dir)
        self.begun, self.before = time.time(), 0.0  # seconds in sessions before this one
        self.values: dict[str, Any] = {
            "state": "running",
            "step": 0,
            "total": None,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": 0.0,
            "resumed": self.begun,
            "process": os.getpid(),
            "process_began": beginning(os.getpid()),
            "host": platform.node(),
            "command": shlex.join(sys.argv),
            "version": terrazzo.__version__,
            "earlier": self.earlier,
        }
        self._write()

    def begin(self, step: int, total: int, **facts: Any) -> None:
        """Record that the loop begins after a step, and facts of the run: its "recipe", its "parameters"."""
        earlier = self.earlier if step else {}
        self.begun, self.before = time.time(), float(earlier.get("seconds") or 0)
        self.values |= facts | {"step": step, "total": total, "seconds": self.before, "resumed": self.begun}
        self.values["started"] = earlier.get("started") or self.values["started"]
        self._write()

    def note_first_step(self) -> None:
        """Record that the folder is this run's: it has made a step."""
        self.values.pop("earlier", None)
        self._write()

    def end(self, state: str, step: int = 0) -> None:
        """Record that the run has finished, stopped or failed after a step; only the first end counts."""
        if self.values["state"] != "running":
            return
        seconds = round(self.before + time.time() - self.begun, 1)
        has_no_step = "earlier" in self.values and state != "finished"
        self.values |= {"state": state, "step": step, "seconds": seconds}
        if has_no_step and not self.earlier and self.values["total"] is None:
            self.path.unlink(missing_ok=True)
            return
        if has_no_step and self.earlier:
            self.values = self.earlier
        self.values.pop("earlier", None)
        try:
            self._write()
        except UserError:  # a full disk; the record is replaced by one of about the same length
            with suppress(OSError), self.path.open("r+", encoding="utf-8") as file:
                file.write(self._text())
                file.truncate()

    def _text(self) -> str:
        return json.dumps(self.values, indent=1) + "\n"

    def _write(self) -> None:
        write_whole(self.path, self._text())


def read_record(work_dir: Path) -> dict[str, Any]:
    """The content of `run.json`, empty if there is none. A run whose process ended without recording it was killed."""
    try:
        values = json.loads((work_dir / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict) or not {"state", "host", "process", "seconds", "resumed"} <= set(values):
        return {}  # of another program
    if values["state"] != "running":
        return values
    gone = values["host"] == platform.node() and not is_alive(values["process"], values.get("process_began"))
    if gone and values.get("earlier"):  # it was killed before its first step
        return values["earlier"]
    with suppress(OSError):
        written = (work_dir / "metrics.jsonl").stat().st_mtime
        values["seconds"] += max(0.0, written - values["resumed"])
    return values | ({"state": "killed"} if gone else {})


def live_process(work_dir: Path) -> int | None:
    """The other process of this machine that is training in a folder."""
    record = read_record(work_dir)
    is_other = record.get("state") == "running" and record["process"] != os.getpid()
    return record["process"] if is_other and record["host"] == platform.node() else None


@dataclass(frozen=True)
class PastRun:
    """A work dir; `best` is the best value of `metric` so far, `seconds` how long the run took."""

    folder: Path
    name: str
    state: str
    step: int
    total: int | None
    metric: str
    lower_is_better: bool
    best: float | None
    best_step: int | None
    seconds: float | None
    started: str | None
    recipe: str | None
    parameters: int | None
    pace: float | None  # median seconds of a step
    config: dict[str, Any]
    records: list[dict[str, Any]]

    def points(self, mode: str, key: str) -> list[tuple[float, float]]:
        """The values of a key at their steps."""
        found = ((record["step"], flat(record).get(key)) for record in self.records if record["mode"] == mode)
        return [(step, value) for step, value in found if value is not None]


def open_runs(paths: Sequence[str | Path]) -> list[PastRun]:
    """The runs in folders, and in folders below them. Raises UserError for a path without any."""
    folders: list[Path] = []
    for path in map(Path, paths):
        root = path.parent if path.name == "metrics.jsonl" else path
        found = sorted(find_runs(root, DEEPEST)) if root.is_dir() else []
        if not found:
            why = "contains no run (a metrics.jsonl)" if root.is_dir() else "is not a folder"
            raise UserError(f"{root} {why}: give the --work-dir of a run, or a folder of such folders")
        folders += [folder for folder in found if folder not in folders]
    return [read_run(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]


def find_runs(folder: Path, depth: int) -> Iterator[Path]:
    """The folder itself if it is a work dir, else those below it; a run that never began does not count."""
    metrics = folder / "metrics.jsonl"
    if metrics.is_file() and (metrics.stat().st_size or (folder / NAME).is_file()):
        yield folder
    elif depth:
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.name.startswith("."):
                yield from find_runs(inner, depth - 1)


def read_run(folder: Path, name: str) -> PastRun:
    """Read a work dir; a run without `run.json` has the state "unknown"."""
    records = read_records(folder / "metrics.jsonl")
    written = folder / "config.yaml"
    config = read_markup(read_text(written), written) if written.is_file() else {}
    record = read_record(folder)
    metric, lower = wanted_metric(config, records)
    scores = [
        (line[metric], line["step"]) for line in records if line["mode"] == "val" and line.get(metric) is not None
    ]
    best = (min if lower else max)(scores, default=(None, None), key=lambda score: score[0])
    paces = [line["seconds"] for line in records if line["mode"] == "train" and "seconds" in line]
    last = max((line["step"] for line in records), default=0)
    return PastRun(
        folder=folder,
        name=name,
        state=record.get("state", "unknown"),
        step=max(last, record.get("step", 0)),
        metric=metric,
        lower_is_better=lower,
        best=best[0],
        best_step=best[1],
        **{key: record.get(key) for key in ("total", "seconds", "started", "recipe", "parameters")},
        pace=statistics.median(paces) if paces else None,
        config=config,
        records=records,
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, except a last one that is incomplete. Raises UserError for any other."""
    records: list[dict[str, Any]] = []
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line or "{}")
        except (ValueError, RecursionError):
            record = None
        if record and isinstance(record, dict) and isinstance(record.get("step"), int) and "mode" in record:
            records.append(record)
        elif record != {} and number < len(lines):
            raise UserError(f'{path}:{number}: this is not a line of a run\'s metrics, {{"step": 1, "mode": ...}}')
    return records


def wanted_metric(config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """The metric that decided which weights were best, and whether less of it is better."""
    checkpoint = (config.get("default_hooks") or {}).get("checkpoint") or {}
    wanted = checkpoint.get("save_best")
    wanted = wanted[0] if isinstance(wanted, list) and wanted else wanted
    name = str(wanted or "auto").rpartition("/")[2]
    if name == "auto":
        scored = next((record for record in records if record["mode"] == "val"), {})
        name = next((key for key in scored if key.startswith("m") and key != "mode"), "mIoU")
    return name, checkpoint.get("rule") == "less" or name == "loss"


def differences(runs: Sequence[PastRun]) -> dict[str, list[Any]]:
    """Config keys whose values differ between runs, with the value of each run."""
    flattened = [dict(leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for values in flattened for key in values)
    found = {key: [values.get(key, ABSENT) for values in flattened] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def repeats(runs: Sequence[PastRun], kind: str) -> list[list[PastRun]]:
    """The runs whose configs differ in their `seeds` or `folds` alone, where there are several with a score."""
    keys = REPEATS[kind]
    groups: dict[str, list[PastRun]] = {}
    for run in runs:
        values = {key: value for key, value in leaves(run.config) if key not in keys}
        if run.best is not None:
            groups.setdefault(json.dumps([run.metric, values], sort_keys=True, default=str), []).append(run)
    found = {key: {str(dict(leaves(run.config)).get(keys[0])) for run in group} for key, group in groups.items()}
    return [group for key, group in groups.items() if len(found[key]) > 1]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config's sections; a list without mappings is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if path or (key in SECTIONS and key not in NOT_TRAINED):
                yield from leaves(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}")
    elif path:
        yield path, value


def chosen_keys(runs: Sequence[PastRun], keys: Sequence[str]) -> list[tuple[str, str]]:
    """(mode, key) of each curve in `keys`: `loss` means those of training and validation, `val.loss` only one.

    Raises UserError for a key that no run has.
    """
    known: dict[str, set[str]] = {}
    for run in runs:
        for record in run.records:
            known.setdefault(record["mode"], set()).update(flat(record))
    chosen: list[tuple[str, str]] = []
    for key in keys:
        mode, _, rest = key.partition(".")
        wanted = [(mode, rest)] if mode in known and rest in known[mode] else []
        wanted = wanted or [(mode, key) for mode in known if key in known[mode]]
        if not wanted:
            names = sorted({name for found in known.values() for name in found} - {"step"})
            plain = ", ".join(name for name in names if not name.startswith(("IoU.", "Acc.")))
            raise UserError(f"no run has values of '{key}'{nearest(key, names)} (there are {plain}, and IoU.<class>)")
        chosen += wanted
    return chosen
