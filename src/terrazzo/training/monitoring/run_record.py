"""`run.json`: the state of a run (running, finished, stopped, failed) and the time it has taken."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import terrazzo
from terrazzo.system.files import write_whole
from terrazzo.system.processes import is_alive

NAME = "run.json"


class RunRecord:
    """The record of one run, written when its loop begins and when it ends."""

    def __init__(self, work_dir: Path, step: int, total: int) -> None:
        self.path = work_dir / NAME
        earlier = read_record(work_dir) if step else {}
        self.begun = time.time()
        self.before = float(earlier.get("seconds") or 0)  # in sessions before this one
        self.values: dict[str, Any] = {
            "state": "running",
            "step": step,
            "total": total,
            "started": earlier.get("started") or datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": self.before,
            "resumed": self.begun,
            "process": os.getpid(),
            "host": platform.node(),
            "command": shlex.join(sys.argv),
            "version": terrazzo.__version__,
        }
        self._write()

    def end(self, state: str, step: int) -> None:
        """Record that the run has finished, stopped or failed after a step."""
        self.values |= {"state": state, "step": step, "seconds": round(self.before + time.time() - self.begun, 1)}
        self._write()

    def _write(self) -> None:
        write_whole(self.path, json.dumps(self.values, indent=1) + "\n")


def read_record(work_dir: Path) -> dict[str, Any]:
    """The content of `run.json`, empty if there is none. A run whose process ended without recording it was killed."""
    try:
        values = json.loads((work_dir / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if values["state"] == "running":
        with suppress(OSError):
            written = (work_dir / "metrics.jsonl").stat().st_mtime
            values["seconds"] += max(0.0, written - values["resumed"])
        if values["host"] == platform.node() and not is_alive(values["process"]):
            values["state"] = "killed"
    return values
