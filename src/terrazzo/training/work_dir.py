"""The folder that a run writes to: no results of another run are lost there, unless that is what was asked for."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from terrazzo.errors import UserError
from terrazzo.system.files import make_folder
from terrazzo.system.process_group import ProcessGroup
from terrazzo.training.monitoring.runs import RunRecord, live_process, read_record

STATES = "checkpoints/step_*.pt"
DEFAULT = Path("runs")


def open_work_dir(
    named: str | Path | None, name: str, group: ProcessGroup, *, resume: bool = False, overwrite: bool = False
) -> tuple[Path, RunRecord | None]:
    """The run's folder, `named` or else one in `runs`, and in the first process the record that claims it.

    Every process calls it. Raises UserError for a folder that is not free for this run.
    """
    folder, record, problem = Path(), None, ""
    if group.is_main:
        try:
            folder = Path(named) if named else choose_folder(DEFAULT / name, resume, overwrite)
            record = claim(make_folder(folder), resume, overwrite)
        except UserError as caught:
            problem = str(caught)
    folder, problem = group.gather((folder, problem))[0]
    if problem:
        raise UserError(problem)
    return folder, record


def choose_folder(base: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """The first of `base`, `base`-2, `base`-3 ... without a run; to resume or overwrite one, the last that has one.

    Raises UserError where more than one could be overwritten.
    """
    pattern = re.compile(re.escape(base.name) + r"-([2-9]|[1-9]\d+)")
    found = {1: base} if base.exists() else {}
    for path in base.parent.iterdir() if base.parent.is_dir() else ():
        if number := pattern.fullmatch(path.name):
            found[int(number[1])] = path
    existing = [found[number] for number in sorted(found)]
    taken = [path for path in existing if holds_run(path) or live_process(path)]
    if overwrite and len(taken) > 1:
        raise UserError(f"{' and '.join(map(str, taken))} have runs: name the one to overwrite with --work-dir")
    if resume and "TORCHELASTIC_RESTART_COUNT" in os.environ and os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return existing[-1] if existing else base  # of the session that has just failed, even before a step
    if resume or overwrite:
        return taken[-1] if taken else base
    number = 1
    while found.get(number) in taken or (number in found and is_foreign(found[number])):
        number += 1
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def claim(folder: Path, resume: bool = False, overwrite: bool = False) -> RunRecord:
    """Record this process as the one that trains in a folder. Raises UserError unless the folder is free for it."""
    with locked(folder):
        if process := live_process(folder):
            raise UserError(
                f"process {process} is training in {folder}: wait for it, stop it, or give another --work-dir"
            )
        if is_foreign(folder):
            raise UserError(
                f"{folder / 'config.yaml'} is not of a run, and training in {folder} would replace it: give another "
                "--work-dir"
            )
        earlier = read_record(folder)
        has_states = any(folder.glob(STATES))
        if holds_run(folder) and not overwrite:
            if not resume:
                raise UserError(
                    f"{folder} already has a run ({described(folder)}): continue it with --resume, give another "
                    "--work-dir, or replace it with --overwrite"
                )
            if earlier.get("state") == "finished" and not has_states:
                raise UserError(
                    f"{folder} has a finished run without the states that --resume needs (checkpoints/step_N.pt): give "
                    "another --work-dir, or replace it with --overwrite"
                )
        if earlier.get("state") == "running":
            warnings.warn(
                f"process {earlier['process']} on {earlier['host']} was training in {folder}: if it still is, stop one "
                "of the two"
            )
        return RunRecord(folder)


def holds_run(folder: Path) -> bool:
    """Report whether a folder has results of a run: weights, states, or records of at least one step."""
    metrics = folder / "metrics.jsonl"
    has_records = metrics.is_file() and metrics.stat().st_size > 0
    return has_records or any(any(folder.glob(name)) for name in ("best.safetensors", "last.safetensors", STATES))


def is_foreign(folder: Path) -> bool:
    """Report whether a folder has a config.yaml that no run has written: a run's has a record or metrics beside it."""
    metrics = folder / "metrics.jsonl"
    is_of_run = bool(read_record(folder)) or (metrics.is_file() and metrics.stat().st_size > 0)
    return (folder / "config.yaml").exists() and not is_of_run


def described(folder: Path) -> str:
    """The state of a folder's run in a few words."""
    record = read_record(folder)
    if not record:
        return "weights, states or metrics"
    return f"{record['state']}, step {record['step']} of {record.get('total') or '?'}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time decide on a folder, where the file system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
