"""The outcome of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """The files and scores that a training run leaves behind."""

    best: Path | None
    last: Path
    metrics: dict[str, Any]  # of the last validation
    log_path: Path
    finished: bool = True
    work_dir: Path = field(default_factory=Path)


class Interrupted(Exception):
    """The session stops before the run's end."""
