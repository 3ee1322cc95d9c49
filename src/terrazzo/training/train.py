"""`train`: from a config to a trained model."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import torch

from terrazzo.config.config import Config
from terrazzo.config.experiment import AMP_DTYPES
from terrazzo.config.load import SUFFIXES, load_config
from terrazzo.data.discovery.data_root import locate
from terrazzo.errors import UserError
from terrazzo.system.devices import choose_device
from terrazzo.system.files import make_folder
from terrazzo.system.process_group import cause, joined
from terrazzo.training.device import chosen_algorithms
from terrazzo.training.monitoring.log import RunLog
from terrazzo.training.monitoring.profile import StepProfile
from terrazzo.training.session import Run, run_session
from terrazzo.training.setup import setup


def train(
    config: Any,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
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
) -> Run:
    """Train a config's model; files go to `work_dir` (default runs/<config's name>).

    `resume` continues the newest state there, or starts from scratch. `amp` is True, "bf16" or "fp16"; `pretrained` is
    a path or "none"; `data_root` replaces the config's location of the data. `check` reads all of the data first;
    `max_steps` ends this session after as many steps, to be resumed; `profile` is the number of steps whose time is
    reported, part by part. Raises UserError for what the user can fix.
    """
    # Config, work dir and device
    settings = load_config(config, {**(overrides or {}), **precision_overrides(amp)}, trust=trust)
    folder = make_folder(Path(work_dir or settings.get("work_dir") or Path("runs") / run_name(config)))
    resume = resume or bool(settings.get("resume")) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    chosen = choose_device(device)

    # The run, in this process or together with others
    with joined(chosen.type) as group:
        chosen = group.device(chosen)
        log = RunLog(folder, quiet, writes=group.is_main)
        try:
            log.info(f"log: {log.path}")
            settings = locate(settings, data_root)
            state = setup(settings, log, chosen, pretrained=pretrained, resume=resume, check=check, group=group)
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
        finally:
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
