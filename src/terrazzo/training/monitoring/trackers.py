"""Trackers of curves and pictures beside the work dir: TensorBoard, Weights & Biases, MLflow, a CSV file.

Nothing leaves the machine unless the user's environment asks for it: W&B writes offline runs, MLflow a local file.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from terrazzo.config.monitoring import TrackerSettings
from terrazzo.errors import UserError
from terrazzo.system.files import write_atomically, write_whole

Info = Callable[[str], None]
MODULES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # the last two write its local file
    "csv": (),
}
# read by the packages at import: no telemetry, and no messages about their database tables
SILENCE = {
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
IDENTITIES = "trackers.json"  # the ids that trackers gave a run, for resuming it


class Tracker(Protocol):
    """A receiver of a run's results; an error in any of its methods ends the tracker and not the run."""

    name: str

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        """A record of metrics.jsonl."""

    def picture(self, step: int, picture: np.ndarray) -> None:
        """An RGB picture (H, W, 3) of a validation."""

    def close(self, state: str) -> None:
        """The run is finished, stopped or failed."""


def import_packages(trackers: Sequence[TrackerSettings]) -> None:
    """Import the packages of the trackers. Raises UserError, with the line that installs them, where one is missing."""
    names = [tracker.name for tracker in trackers]
    for variable, value in SILENCE.items() if names else ():
        os.environ.setdefault(variable, value)
    try:
        for module in (module for name in names for module in MODULES[name]):
            importlib.import_module(module)
    except ImportError as problem:
        raise UserError(
            f'tracking with {", ".join(names)} needs a package ({problem}): pip install "terrazzo[track]"'
        ) from None


def open_trackers(
    trackers: Sequence[TrackerSettings], work_dir: Path, config: Mapping[str, Any], step: int, info: Info
) -> list[Tracker]:
    """Open the trackers of a run that continues after `step` (0: a new one); each logs where it writes.

    Raises UserError for one that fails to start.
    """
    identities = Identities(work_dir, fresh=step == 0)
    opened: list[Tracker] = []
    for settings in trackers:
        options: dict[str, Any] = {"folder": Path(settings.options.get("save_dir") or work_dir), **settings.options}
        options.pop("save_dir", None)
        run: dict[str, Any] = {"name": work_dir.name, "config": config, "identities": identities}
        try:
            if settings.name == "tensorboard":
                opened.append(TensorboardTracker(info, step=step, **options))
            elif settings.name == "wandb":
                opened.append(WandbTracker(info, **run, **options))
            elif settings.name == "mlflow":
                opened.append(MlflowTracker(info, **run, **options))
            else:
                opened.append(CsvTracker(info, work_dir))
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
    numbers = {key: float(value) for key, value in values.items() if is_number(value)}
    for name, scores in (values.get("per_class") or {}).items():
        numbers |= {f"{score}.{name}": float(value) for score, value in scores.items() if is_number(value)}
    return numbers


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def trouble(tracker: Tracker, call: Callable[[Tracker], None]) -> str | None:
    """Call a tracker, and return what went wrong in its library, or None."""
    try:
        call(tracker)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


class Identities:
    """The names under which trackers know a run, kept in its work dir."""

    def __init__(self, work_dir: Path, fresh: bool) -> None:
        self.path = work_dir / IDENTITIES
        self.known: dict[str, str] = {}
        if not fresh:
            with suppress(OSError, ValueError):
                self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def keep(self, tracker: str, identity: str) -> None:
        self.known[tracker] = identity
        write_whole(self.path, json.dumps(self.known))


class CsvTracker:
    """`metrics.csv`: the records of metrics.jsonl as a table, a column for each value."""

    name = "csv"

    def __init__(self, info: Info, folder: Path) -> None:
        self.source, self.path = folder / "metrics.jsonl", folder / "metrics.csv"
        self.columns: list[str] = []
        self.write_all()
        info(f"csv: {self.path}")

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

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)

    def picture(self, step: int, picture: np.ndarray) -> None:
        pass

    def close(self, state: str) -> None:
        pass


class TensorboardTracker:
    """Event files in `tensorboard/`; a resumed run hides what the earlier one wrote of later steps."""

    name = "tensorboard"

    def __init__(self, info: Info, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder / "tensorboard"
        self.writer: Any = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
        info(f"tensorboard: {self.folder}; to look at it: tensorboard --logdir {self.folder}")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        for name, value in flat(values).items():
            self.writer.add_scalar(f"{mode}/{name.replace('.', '/', 1)}", value, step)
        self.writer.flush()

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.writer.add_image("val/pictures", picture, step, dataformats="HWC")

    def close(self, state: str) -> None:
        self.writer.close()


class WandbTracker:
    """A run of Weights & Biases: offline, in `wandb/`, unless WANDB_MODE is set."""

    name = "wandb"

    def __init__(
        self,
        info: Info,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        identities: Identities,
        init_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        import wandb

        self.wandb = wandb
        mode = os.environ.get("WANDB_MODE") or "offline"
        options = {"project": "terrazzo", "name": name, "dir": str(folder), "config": dict(config)}
        options["settings"] = wandb.Settings(silent=True, console="off")
        if identity := identities.known.get("wandb"):
            options |= {"id": identity, "resume": "allow"}
        self.run: Any = wandb.init(**{**options, **(init_kwargs or {}), "mode": mode})
        identities.keep("wandb", str(self.run.id))
        if mode == "offline":
            info(f"wandb: offline, in {folder / 'wandb'}; `wandb sync` sends a run, WANDB_MODE=online sends it live")
        else:
            info(f"wandb: WANDB_MODE is {mode}")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        self.run.log({f"{mode}/{name.replace('.', '/', 1)}": value for name, value in flat(values).items()}, step=step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.run.log({"val/pictures": self.wandb.Image(picture)}, step=step)

    def close(self, state: str) -> None:
        self.run.finish(exit_code=0 if state == "finished" else 1)


class MlflowTracker:
    """A run of MLflow in `mlflow.db` and `mlflow/` of the work dir, or at MLFLOW_TRACKING_URI."""

    name = "mlflow"

    def __init__(
        self,
        info: Info,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        identities: Identities,
        exp_name: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        from mlflow.tracking import MlflowClient

        address = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if address is None:
            address = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
            artifacts = (folder / "mlflow").resolve().as_uri()
            if tracking_uri is not None:
                info(
                    f"mlflow: nothing is sent to {tracking_uri}, the tracking_uri of the config, unless "
                    f"MLFLOW_TRACKING_URI={tracking_uri} is set"
                )
        info(f"mlflow: {address}")
        self.client: Any = MlflowClient(tracking_uri=address)
        self.run_id = identities.known.get("mlflow")
        if self.run_id is None:
            experiment = exp_name or "terrazzo"
            found = self.client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self.client.create_experiment(experiment, artifacts)
            own_tags = {key: str(value) for key, value in (tags or {}).items()}
            self.run_id = self.client.create_run(number, run_name=run_name or name, tags=own_tags).info.run_id
            for key, value in (params or {}).items():
                self.client.log_param(self.run_id, key, value)
            self.client.log_dict(self.run_id, dict(config), "config.json")
            identities.keep("mlflow", str(self.run_id))
        else:
            self.client.update_run(self.run_id, status="RUNNING")

    def scalars(self, step: int, mode: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        names = {f"{mode}/{allowed(name.replace('.', '/', 1))}": value for name, value in flat(values).items()}
        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in names.items()])

    def picture(self, step: int, picture: np.ndarray) -> None:
        from PIL import Image

        self.client.log_image(self.run_id, Image.fromarray(picture), artifact_file=f"pictures/step_{step:06d}.png")

    def close(self, state: str) -> None:
        status = {"finished": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED")
        self.client.set_terminated(self.run_id, status)


def allowed(name: str) -> str:
    """The name with only the characters that MLflow accepts."""
    return re.sub(r"[^\w\-. /:]", "_", name)
