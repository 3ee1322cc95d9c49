"""The logs of a run: text, JSON lines, pictures, and a progress bar."""

from __future__ import annotations

import io
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from terrazzo.config.config import without_secrets
from terrazzo.errors import UserError
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.messages import MESSAGES, SAID, is_shown
from terrazzo.system.painting import save_picture
from terrazzo.system.printable import caption, printable
from terrazzo.system.terminal import Console
from terrazzo.training.monitoring.report import write_run_report
from terrazzo.training.monitoring.runs import RunRecord
from terrazzo.training.monitoring.trackers import Tracker

# scores that are not percentages
EXACT = ("loss", "temperature", "d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog")


class RunLog:
    """`log.txt`, `metrics.jsonl` and `pictures/` in a work dir, trackers, and the console.

    A process with `writes=False` logs nothing.
    """

    def __init__(
        self,
        work_dir: Path,
        quiet: bool = False,
        writes: bool = True,
        record: RunRecord | None = None,
        secrets: Mapping[str, Any] | None = None,
    ) -> None:
        self.work_dir = work_dir
        self.path, self.metrics_path = work_dir / "log.txt", work_dir / "metrics.jsonl"
        self.writes = writes
        if writes:
            self.metrics_path.touch()
        self.console = Console(quiet=quiet or not writes, soft_wrap=True)
        self.has_begun = False  # a step has been made: the files of the work dir are this run's
        self._broken = False
        self.trackers: list[Tracker] = []
        self.run = record
        self.secrets = dict(secrets or {})  # values of the environment, which no file repeats

    def begin(self, step: int, total: int, trackers: Callable[[], list[Tracker]], **facts: Any) -> None:
        """Record that the loop begins and facts of the run, and open the trackers."""
        if self.writes:
            self.trackers = trackers()
            if self.run is not None:
                self.run.begin(step, total, **facts)

    def end(self, state: str, step: int) -> None:
        """Record that the loop is over: the run has "finished", "stopped" or "failed" after a step."""
        self._call_trackers(lambda tracker: tracker.close(state))
        self.trackers = []
        run, self.run = self.run, None
        if run is not None:
            with suppress(UserError):  # a full disk, which is reported elsewhere
                run.end(state, step)
            try:
                self.info(f"report: {write_run_report(self.work_dir)}")
            except Exception as problem:  # a run does not fail for want of its page
                self.info(f"warning: no report was written: {problem}")

    def info(self, text: str) -> None:
        """Log text on the console and in the file."""
        with suppress(OSError):  # its terminal may have been closed
            self.console.print(text, markup=False)
        self.write(text)

    def write(self, text: str) -> None:
        """Log text in the file only."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        text = printable(without_secrets(text, self.secrets))
        self._write(self.path, "".join(f"{stamp}  {line}\n" for line in text.splitlines()))

    def record(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        """Add one object to the JSON-lines log."""
        self._write(self.metrics_path, json.dumps({"step": step, "mode": mode, **values}) + "\n")
        self._call_trackers(lambda tracker: tracker.scalars(step, mode, values))

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Save an RGB picture (H, W, 3) of a validation as `pictures/step_000500.png`."""
        try:
            save_picture(make_folder(self.work_dir / "pictures") / f"step_{step:06d}.png", picture)
        except UserError as problem:
            self.info(f"warning: {problem}")
        self._call_trackers(lambda tracker: tracker.picture(step, picture))

    def _call_trackers(self, call: Callable[[Tracker], None]) -> None:
        """Call each tracker; one that fails is reported once and dropped."""
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as problem:  # noqa: PERF203 - of its library
                self.trackers.remove(tracker)
                self.info(f"warning: tracking with {tracker.name} ends here: {type(problem).__name__}: {problem}")

    def forget_after(self, step: int) -> None:
        """Drop lines and pictures of later steps, which a resumed run repeats; a new run (0) has none."""
        if not self.writes:
            return
        for path in (self.work_dir / "pictures").glob("step_*.png"):
            number = path.stem.partition("_")[2]
            if number.isdecimal() and int(number) > step:
                path.unlink(missing_ok=True)
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(self.metrics_path, "".join(line for line in lines if step_of(line) <= step))

    def _write(self, path: Path, text: str) -> None:
        """Append to a log; one that cannot be written (a full disk) does not end training, and is reported once."""
        if not self.writes:
            return
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as problem:
            if not self._broken:
                self.console.print(f"warning: cannot write to {path}: {problem.strerror}", markup=False)
            self._broken = True


class LoggedWarnings:
    """A context whose warnings and messages are also logged: those before there is a log, as soon as it is `opened`."""

    def __init__(self) -> None:
        self.log: RunLog | None = None
        self.waiting = [*SAID]

    def __enter__(self) -> LoggedWarnings:
        self._before = warnings.showwarning, MESSAGES.take
        warnings.showwarning, MESSAGES.take = self._show, self._take
        return self

    def __exit__(self, *_: object) -> None:
        warnings.showwarning, MESSAGES.take = self._before

    def opened(self, log: RunLog) -> None:
        """Log what waits, and log the rest at once."""
        self.log = log
        for text in self.waiting:
            log.write(text)

    def _show(self, message: Warning | str, *details: Any, **more: Any) -> None:
        self._before[0](message, *details, **more)
        self._write(f"warning: {message}")

    def _take(self, text: str) -> None:
        """Show a message on the screen, of the run if it has one, and log it."""
        if self.log is None:
            self._before[1](text)
        if self.log is None or is_shown():
            self._write(text)
        else:
            self.log.info(text)

    def _write(self, text: str) -> None:
        if self.log is not None:
            self.log.write(text)
        else:
            self.waiting.append(text)


def step_of(line: str) -> float:
    """The step of a JSON line; infinity for an incomplete one."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def class_table(result: Mapping[str, Any]) -> Table:
    """A table of the per-class scores; a class that never occurs is absent."""
    per_class = result["per_class"]
    scores = list(next(iter(per_class.values())))
    table = Table("class", *(Column(score, justify="right") for score in scores))
    for name, values in per_class.items():
        table.add_row(caption(name), *(shown(values.get(score)) for score in scores))
    return table


def shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:.2f}"


def summary(result: Mapping[str, Any]) -> str:
    """`mIoU 61.20  mAcc 70.11  aAcc 88.00`, intervals as `61.20 [60.05, 62.31]`, the loss where there is one."""
    names = [name for name, value in result.items() if value is None or isinstance(value, (int, float))]
    intervals = result.get("intervals", {})
    words = []
    for name in sorted(names, key=lambda name: name in ("aAcc", "loss")):
        value = f"{result[name]:.4f}" if name in EXACT and result[name] is not None else shown(result[name])
        around = f" [{shown(intervals[name][0])}, {shown(intervals[name][1])}]" if name in intervals else ""
        words.append(f"{name} {value}{around}")
    return "  ".join(words)


def as_text(table: Table) -> str:
    """A table as plain text."""
    text = io.StringIO()
    Console(width=1000, file=text).print(table)
    return text.getvalue()


def progress_bar(console: Console, fields: str = "") -> Progress:
    """A live progress bar, followed by a text of named fields."""
    texts = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.completed}/{task.total}", fields)]
    return Progress(texts[0], BarColumn(bar_width=24), *texts[1:], console=console, transient=True)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
