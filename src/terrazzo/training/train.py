"""`train`: from a config to a trained model."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terrazzo.config.config import Config
from terrazzo.config.experiment import AMP_DTYPES
from terrazzo.config.load import SUFFIXES, load_config
from terrazzo.config.sections import path_setting
from terrazzo.data.discovery.data_root import locate
from terrazzo.errors import UserError
from terrazzo.system.devices import choose_device
from terrazzo.system.failures import note
from terrazzo.system.process_group import cause, joined
from terrazzo.training.device import chosen_algorithms
from terrazzo.training.loop import fit, training_batches
from terrazzo.training.monitoring.log import LoggedWarnings, RunLog
from terrazzo.training.monitoring.profile import StepProfile
from terrazzo.training.monitoring.progress import StepProgress
from terrazzo.training.monitoring.trackers import open_trackers
from terrazzo.training.saving import save
from terrazzo.training.setup import setup
from terrazzo.training.state import Observer, TrainingState
from terrazzo.training.stopping import Interrupted, SessionEnd
from terrazzo.training.work_dir import open_work_dir, state_of, was_restarted


def train(
    config: Any,
    *,
    work_dir: str | Path | None = None,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    overrides: dict[str, Any] | None = None,
    amp: str | bool | None = None,
    pretrained: str | None = None,
    device: str | torch.device | None = None,
    trust: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
    data_root: str | Path | None = None,
    check: bool = True,
    profile: int = 0,
    model: nn.Module | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Train a config's model; files go to `work_dir` (default runs/<config's name>, with a number if that has a run).

    `resume` continues the newest state there, or starts from scratch; it may also be the state to continue, or a run's
    folder. `overwrite` replaces a run in the work dir. `amp` is True, "bf16" or "fp16"; `pretrained` is
    a path or "none"; `data_root` replaces the config's location of the data. `check` reads all of the data first;
    `max_steps` ends this session after as many steps, to be resumed; `profile` is the number of steps whose time is
    reported, part by part. `model` is one that was built by the config: training starts from its weights and changes
    them. `observers` are told what the loop does, after the config's own. Raises UserError for what the user can fix.
    """
    with LoggedWarnings() as warned:
        # Config, work dir and device
        settings = load_config(config, {**(overrides or {}), **precision_overrides(amp)}, trust=trust)
        named = work_dir or path_setting(settings, "work_dir")
        if isinstance(resume, (str, Path)):
            resume = state_of(resume)
            named = named or resume.parent.parent
        resume = resume or bool(settings.get("resume")) or was_restarted()
        chosen = choose_device(device)

        # The run, in this process or together with others
        with joined(chosen.type) as group:
            chosen = group.device(chosen)
            folder, record = open_work_dir(named, run_name(config), group, resume=resume, overwrite=overwrite)
            log = RunLog(folder, quiet, writes=group.is_main, record=record, secrets=settings.secrets)
            warned.opened(log)
            try:
                log.info(f"log: {log.path}")
                settings = locate(settings, data_root)
                options: dict[str, Any] = {"pretrained": pretrained, "resume": resume, "check": check, "group": group}
                state = setup(settings, log, chosen, model=model, observers=observers, **options)
                with chosen_algorithms(state.settings):
                    return run_session(state, StepProfile(profile, state), max_steps)
            except UserError as problem:
                log.write(f"error: {problem}")
                raise
            except Exception as problem:
                log.write(traceback.format_exc())
                reason = cause(problem) if group.size > 1 else None
                if reason is not None:
                    raise UserError(f"process {group.rank} of {group.size}: {reason}") from problem
                raise
            except KeyboardInterrupt:
                log.end("killed", 0)
                raise
            finally:
                log.end("failed", 0)  # unless it has ended otherwise
                log.info(f"log: {log.path}")


def precision_overrides(amp: str | bool | None) -> dict[str, Any]:
    """The config keys for the argument `amp`. Raises UserError for an unknown value."""
    if amp is None:
        return {}
    if not isinstance(amp, bool) and amp not in ("auto", *AMP_DTYPES):
        raise UserError(f"amp '{amp}' is neither bf16 nor fp16")
    kind = "AmpOptimWrapper" if amp else "OptimWrapper"
    return {"optim_wrapper.type": kind, "optim_wrapper.dtype": AMP_DTYPES.get(str(amp))}


def run_name(config: Any) -> str:
    """The work dir's name: that of the config file or of the recipe."""
    if isinstance(config, Config):
        return config.name or "run"
    if not isinstance(config, (str, Path)):
        return "run"
    path = Path(config)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


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
    log, config, secrets = state.log, state.config.shareable(), state.config.secrets
    trackers = [tracker.shareable(secrets) for tracker in state.experiment.watch.trackers]
    facts: dict[str, Any] = {"recipe": recipe.name if (recipe := state.config.recipe) else None}
    facts |= {"parameters": sum(parameter.numel() for parameter in state.model.parameters())}
    own_trackers = partial(open_trackers, trackers, log.work_dir, config, state.step, log.info)
    log.begin(state.step, state.total, own_trackers, **facts)
    end = SessionEnd(state.settings.time_limit, max_steps)
    with end, StepProgress(log.console, state.total, state.step) as progress:
        try:
            with training_batches(state) as batches:
                fit(state, batches, profile, end, progress)
        except Interrupted:
            profile.finish()
            save(state)
            log.end("stopped", state.step)
            log.info(f"stopped at step {state.step} of {state.total}, state saved; to continue: {command(state)}")
            return outcome(state, finished=False)
        except Exception as problem:
            note(problem, f"in training step {state.step + 1}")
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
    can_save = state.log.has_begun and state.step > state.saved_step and state.group.size == 1
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
