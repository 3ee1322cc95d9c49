"""A training session: the loop with its progress bar, its signals and its outcomes."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.training.loop import fit
from terrazzo.training.milestones import Interrupted, SessionEnd
from terrazzo.training.monitoring.profile import StepProfile
from terrazzo.training.monitoring.progress import StepProgress
from terrazzo.training.monitoring.trackers import open_trackers
from terrazzo.training.saving import save
from terrazzo.training.state import TrainingState


@dataclass
class Run:
    """The files and scores that a training run leaves behind."""

    best: Path | None
    last: Path
    metrics: dict[str, Any]  # of the last validation
    log_path: Path
    finished: bool = True
    work_dir: Path = field(default_factory=Path)


def run_session(state: TrainingState, profile: StepProfile, max_steps: int | None = None) -> Run:
    """Train until the run ends or is stopped; a run that fails or is interrupted is saved first."""
    log, trackers, config = state.log, state.experiment.watch.trackers, state.config.to_dict()
    log.begin(state.step, state.total, lambda: open_trackers(trackers, log.work_dir, config, state.step, log.info))
    end = SessionEnd(state.settings.time_limit, max_steps)
    with end, StepProgress(log.console, state.total, state.step) as progress:
        try:
            fit(state, profile, end, progress)
        except Interrupted:
            profile.finish()
            save(state)
            log.end("stopped", state.step)
            log.info(f"stopped at step {state.step} of {state.total}, state saved; to continue: {command(state)}")
            return outcome(state, finished=False)
        except Exception:
            rescue(state)
            log.end("failed", state.step)
            raise
    profile.finish()
    log.end("finished", state.step)
    result = outcome(state)
    log.info(f"weights: {result.last}" + (f", best: {result.best}" if result.best else ""))
    return result


def rescue(state: TrainingState) -> None:
    """Save a failing run, unless its weights are broken or saving is what fails."""
    can_save = state.step > state.saved_step and state.group.size == 1
    if can_save and all(bool(value.isfinite().all()) for value in state.model.state_dict().values()):
        with suppress(UserError):
            save(state)
    if state.saved_step:
        state.log.info(f"the state of step {state.saved_step} is saved; to continue from it: {command(state)}")


def command(state: TrainingState) -> str:
    """The command that continues this run; the work dir's config includes every option of the command line."""
    config, folder = (shlex.quote(str(path)) for path in (state.log.work_dir / "config.yaml", state.log.work_dir))
    return f"terrazzo train {config} --work-dir {folder} --resume"


def outcome(state: TrainingState, finished: bool = True) -> Run:
    """The run's files and scores."""
    best = state.checkpoints.best if state.checkpoints.best.exists() else None
    return Run(best, state.checkpoints.last, state.metrics, state.log.path, finished, state.log.work_dir)
