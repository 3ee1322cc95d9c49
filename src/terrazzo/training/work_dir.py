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
from terrazzo.training.checkpoints import step_number
from terrazzo.training.monitoring.runs import RunRecord, live_process, read_record

STATES = "checkpoints/step_*.pt"
DEFAULT = Path("runs")


def open_work_dir(
    named: str | Path | None,
    name: str,
    group: ProcessGroup,
    *,
    resume: bool | Path = False,
    overwrite: bool = False,
) -> tuple[Path, RunRecord | None]:
    """The run's folder, `named` or else one in `runs`, and in the first process the record that claims it.

    A state to resume may be another run's, which stays as it is. Every process calls it. Raises UserError for a folder
    that is not free for this run.
    """
    folder, record, problem = Path(), None, ""
    if overwrite and was_restarted():  # with the states of the run that it replaces still there, perhaps
        raise UserError("a restarted run resumes, and --overwrite replaces: give a --work-dir that has no run")
    if group.is_main:
        try:
            folder = make_folder(Path(named or choose_folder(DEFAULT / name, bool(resume), overwrite)))
            is_elsewhere = isinstance(resume, Path) and not resume.parent.parent.samefile(folder)
            record = claim(folder, was_restarted() or (bool(resume) and not is_elsewhere), overwrite)
        except UserError as caught:
            problem = str(caught)
    folder, problem = group.gather((folder, problem))[0]
    if problem:
        raise UserError(problem)
    return folder, record


def state_of(source: str | Path) -> Path:
    """The state to resume: a file `RUN/checkpoints/step_N.pt`, or the newest of a run's folder.

    Raises UserError for any other file.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob(STATES), key=step_number)
        if not found:
            raise UserError(f"{path} has no state to resume ({STATES})")
        return found[-1]
    if not path.is_file():
        raise UserError(f"there is no state {path}: --resume-from takes RUN/checkpoints/step_N.pt, --load-from weights")
    if path.parent.name != "checkpoints" or not path.match("step_*.pt"):
        raise UserError(
            f"{path} is not a state of a run (RUN/checkpoints/step_N.pt), so its optimizer and its progress cannot be "
            f"resumed: start a new run from its weights with --load-from {path}"
        )
    return path


def choose_folder(base: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """The first of `base`, `base`-2, `base`-3 ... without a run; to resume or overwrite one, the last that has one.

    Raises UserError where more than one could be overwritten.
    """
    pattern = re.compile(re.escape(base.name) + r"-([2-9]|[1-9]\d+)")
    found = {1: base} if base.exists() else {}
    for path in base.parent.iterdir() if base.parent.is_dir() else ():
        if numbered := pattern.fullmatch(path.name):
            found[int(numbered[1])] = path
    existing = [found[number] for number in sorted(found)]
    taken = [path for path in existing if holds_run(path) or live_process(path)]
    if overwrite and len(taken) > 1:
        raise UserError(f"{' and '.join(map(str, taken))} have runs: name the one to overwrite with --work-dir")
    if resume and was_restarted():
        return existing[-1] if existing else base  # of the session that has just failed, even before a step
    if resume or overwrite:
        return taken[-1] if taken else base
    number = 1
    while found.get(number) in taken or (number in found and is_foreign(found[number])):
        number += 1
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def was_restarted() -> bool:
    """Report whether a launcher has started this process again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def claim(folder: Path, resume: bool = False, overwrite: bool = False) -> RunRecord:
    """Record this process as the one that trains in a folder. Raises UserError unless the folder is free for it."""
    with locked(folder):
        check_free(folder, resume, overwrite)
        earlier = read_record(folder)
        if earlier.get("state") == "running":
            warnings.warn(
                f"process {earlier['process']} on {earlier['host']} was training in {folder}: if it still is, stop one "
                "of the two"
            )
        return RunRecord(folder)


def check_free(folder: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Raise UserError if training in a folder would harm another run, or files of the user's own."""
    if process := live_process(folder):
        raise UserError(f"process {process} is training in {folder}: wait for it, stop it, or give another --work-dir")
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
