"""Trackers of curves and pictures beside the work dir: TensorBoard, Weights & Biases, MLflow, a CSV file.

Nothing leaves the machine unless the user's environment asks for it: W&B writes offline runs, MLflow a local file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from terrazzo.config.monitoring import TrackerSettings
from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra
from terrazzo.system.files import write_whole

# read by the packages at import: no telemetry, and no messages about their database tables
SILENCE = {
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
IDENTITIES = "trackers.json"  # the ids that trackers gave a run


@dataclass(frozen=True)
class TrackedRun:
    """A run that continues after `step` (0: a new one); trackers write to `folder`, and report where with `info`."""

    work_dir: Path
    folder: Path
    config: dict[str, Any]
    step: int
    info: Callable[[str], None]

    @property
    def identities(self) -> dict[str, str]:
        """The ids that trackers gave the run."""
        try:
            return json.loads((self.work_dir / IDENTITIES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def keep(self, tracker: str, identity: str) -> None:
        """Store the id that a tracker gave the run, for resuming it."""
        write_whole(self.work_dir / IDENTITIES, json.dumps(self.identities | {tracker: identity}))


class Tracker:
    """A receiver of a run's results; an error in any of its methods ends the tracker and not the run."""

    name: str
    packages: tuple[str, ...] = ()

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        """A record of metrics.jsonl."""

    def picture(self, step: int, picture: np.ndarray) -> None:
        """An RGB picture (H, W, 3) of a validation."""

    def close(self, state: str) -> None:
        """The run is finished, stopped or failed."""


class CsvTracker(Tracker):
    """`metrics.csv`: the records of metrics.jsonl as a table, a column for each value."""

    name = "csv"

    def __init__(self, run: TrackedRun) -> None:
        self.source, self.path = run.work_dir / "metrics.jsonl", run.work_dir / "metrics.csv"
        self.columns: list[str] = []
        self.write_all()
        run.info(f"csv: {self.path}")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        row = {"step": step, "mode": mode, **flat(values)}
        if set(row) <= set(self.columns):
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        else:
            self.write_all()

    def write_all(self) -> None:
        """Rewrite the whole table from the records so far."""
        records = [json.loads(line) for line in self.source.read_text(encoding="utf-8").splitlines()]
        rows = [flat(record) | {"step": record["step"], "mode": record["mode"]} for record in records]
        self.columns = list(dict.fromkeys(["step", "mode", *(name for row in rows for name in row)]))
        table = io.StringIO()
        writer = csv.DictWriter(table, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, table.getvalue())


class TensorboardTracker(Tracker):
    """Event files in `tensorboard/`; a resumed run hides what the earlier one wrote of later steps."""

    name = "tensorboard"
    packages = ("tensorboard",)

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        self.writer: Any = SummaryWriter(str(folder), purge_step=run.step + 1 if run.step else None)
        run.info(f"tensorboard: {folder}; to look at it: tensorboard --logdir {folder}")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        for name, value in paths(mode, values).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.writer.add_image("val/pictures", picture, step, dataformats="HWC")

    def close(self, state: str) -> None:
        self.writer.close()


class WandbTracker(Tracker):
    """A run of Weights & Biases: offline, in `wandb/`, unless WANDB_MODE is set."""

    name = "wandb"
    packages = ("wandb",)

    def __init__(self, run: TrackedRun, init_kwargs: Mapping[str, Any] | None = None) -> None:
        import wandb

        self.wandb = wandb
        mode = os.environ.get("WANDB_MODE") or "offline"
        options = {"project": "terrazzo", "name": run.work_dir.name, "dir": str(run.folder), "config": run.config}
        options["settings"] = wandb.Settings(silent=True, console="off")
        if identity := run.identities.get("wandb"):
            options |= {"id": identity, "resume": "allow"}
        self.run: Any = wandb.init(**{**options, **(init_kwargs or {}), "mode": mode})
        run.keep("wandb", str(self.run.id))
        offline = f"offline, in {run.folder / 'wandb'}; `wandb sync` sends a run, WANDB_MODE=online sends it live"
        run.info(f"wandb: {offline if mode == 'offline' else f'WANDB_MODE is {mode}'}")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        self.run.log(paths(mode, values), step=step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.run.log({"val/pictures": self.wandb.Image(picture)}, step=step)

    def close(self, state: str) -> None:
        self.run.finish(exit_code=0 if state == "finished" else 1)


class MlflowTracker(Tracker):
    """A run of MLflow in `mlflow.db` and `mlflow/` of the work dir, or at MLFLOW_TRACKING_URI."""

    name = "mlflow"
    packages = ("mlflow", "sqlalchemy", "alembic")  # the last two write its local file

    def __init__(
        self,
        run: TrackedRun,
        exp_name: str = "terrazzo",
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        from mlflow.tracking import MlflowClient

        # The server, or a local file
        address = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = (run.folder / "mlflow").resolve().as_uri() if address is None else None
        if address is None and tracking_uri is not None:
            run.info(
                f"mlflow: nothing is sent to {tracking_uri}, the tracking_uri of the config, unless "
                f"MLFLOW_TRACKING_URI={tracking_uri} is set"
            )
        address = address or f"sqlite:///{(run.folder / 'mlflow.db').resolve()}"
        run.info(f"mlflow: {address}")

        # The run, a new one or one to continue
        self.client: Any = MlflowClient(tracking_uri=address)
        self.run_id = run.identities.get("mlflow")
        if self.run_id is not None:
            self.client.update_run(self.run_id, status="RUNNING")
            return
        found = self.client.get_experiment_by_name(exp_name)
        number = found.experiment_id if found else self.client.create_experiment(exp_name, artifacts)
        own_tags = {key: str(value) for key, value in (tags or {}).items()}
        self.run_id = self.client.create_run(number, run_name=run_name or run.work_dir.name, tags=own_tags).info.run_id
        for key, value in (params or {}).items():
            self.client.log_param(self.run_id, key, value)
        self.client.log_dict(self.run_id, run.config, "config.json")
        run.keep("mlflow", str(self.run_id))

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow accepts only these characters
        names = {re.sub(r"[^\w\-. /:]", "_", name): value for name, value in paths(mode, values).items()}
        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in names.items()])

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.client.log_image(self.run_id, Image.fromarray(picture), artifact_file=f"pictures/step_{step:06d}.png")

    def close(self, state: str) -> None:
        status = {"finished": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED")
        self.client.set_terminated(self.run_id, status)


TYPES = {kind.name: kind for kind in (CsvTracker, TensorboardTracker, WandbTracker, MlflowTracker)}


def import_packages(trackers: Sequence[TrackerSettings]) -> None:
    """Import the packages of the trackers. Raises UserError, with the line that installs them, where one is missing."""
    names = [tracker.name for tracker in trackers]
    for variable, value in SILENCE.items() if names else ():
        os.environ.setdefault(variable, value)
    for name in names:
        for module in TYPES[name].packages:
            import_extra(module, "track", f"curves in {name}")


def open_trackers(
    trackers: Sequence[TrackerSettings], work_dir: Path, config: dict[str, Any], step: int, info: Callable[[str], None]
) -> list[Tracker]:
    """Open the trackers of a run that continues after `step` (0: a new one); each logs where it writes.

    Raises UserError for one that fails to start.
    """
    if not step:
        (work_dir / IDENTITIES).unlink(missing_ok=True)
    opened: list[Tracker] = []
    for settings in trackers:
        options = dict(settings.options)
        run = TrackedRun(work_dir, Path(options.pop("save_dir", None) or work_dir), config, step, info)
        try:
            opened.append(TYPES[settings.name](run, **options))
        except Exception as problem:  # of the tracker's library, such as an unreachable server
            for tracker in opened:
                with suppress(Exception):
                    tracker.close("failed")
            reason = f"{type(problem).__name__}: {problem}"
            raise UserError(
                f"cannot start tracking with {settings.name} ({reason}): fix that, or remove it from `track`"
            ) from None
    return opened


def flat(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name: `mIoU`, `IoU.road`; absent ones are omitted."""
    found = dict(values)
    for name, scores in (values.get("per_class") or {}).items():
        found |= {f"{score}.{name}": value for score, value in scores.items()}
    return {
        key: float(value) for key, value in found.items() if isinstance(value, Real) and not isinstance(value, bool)
    }


def paths(mode: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by the names of their curves: `val/mIoU`, `val/IoU/road`."""
    return {f"{mode}/{name.replace('.', '/', 1)}": value for name, value in flat(values).items()}
