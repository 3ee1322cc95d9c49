"""Settings that monitor a run: trackers, and pictures of validations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from terrazzo.arguments import check_keys
from terrazzo.config.config import without_secrets
from terrazzo.errors import UserError, nearest

Tracker = Literal["tensorboard", "wandb", "mlflow", "csv"]  # names in `track` and --track
# name -> the type among `vis_backends`
TRACKERS: dict[Tracker, str] = {
    "tensorboard": "TensorboardVisBackend",
    "wandb": "WandbVisBackend",
    "mlflow": "MLflowVisBackend",
    "csv": "CSVVisBackend",
}
# arguments of each type: those that are used, and those that have no effect here
OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "LocalVisBackend": ((), ("save_dir", "img_save_dir", "config_save_file", "scalar_save_file")),
    "TensorboardVisBackend": (("save_dir",), ()),
    "WandbVisBackend": (("save_dir", "init_kwargs"), ("define_metric_cfg", "commit", "log_code_name", "watch_kwargs")),
    "MLflowVisBackend": (
        ("save_dir", "exp_name", "run_name", "tags", "params", "tracking_uri"),
        ("artifact_suffix", "tracked_config_keys"),
    ),
    "CSVVisBackend": ((), ()),
}
# of `init_kwargs`: what labels a run; others could send it, or what the process knows, to an address in the config
WANDB_LABELS = ("project", "entity", "name", "group", "job_type", "tags", "notes", "id", "resume")
ELSEWHERE = ("ClearMLVisBackend", "NeptuneVisBackend", "DVCLiveVisBackend", "AimVisBackend")
DEFAULT_PICTURES = 4


@dataclass(frozen=True)
class TrackerSettings:
    """A tracker by its name in TRACKERS, and the options that the config gives it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def shareable(self, secrets: Mapping[str, Any]) -> TrackerSettings:
        """The same with the names of `secrets` instead of what they hold, except in the folder to write to."""
        hidden = {key: without_secrets(value, secrets) for key, value in self.options.items() if key != "save_dir"}
        return TrackerSettings(self.name, self.options | hidden)


@dataclass(frozen=True)
class WatchSettings:
    """The trackers that get curves and pictures beside the log, and the samples per validation picture (0: none)."""

    trackers: tuple[TrackerSettings, ...] = ()
    pictures: int = DEFAULT_PICTURES


def watch_settings(config: Mapping[str, Any], pictures: int) -> WatchSettings:
    """The trackers of `visualizer`, `vis_backends` and `track`, each once. Raises UserError for an unknown one."""
    visualizer = config.get("visualizer") or {}
    found: dict[str, TrackerSettings] = {}
    for where, specs in (
        ("visualizer.vis_backends", visualizer.get("vis_backends")),
        ("vis_backends", config.get("vis_backends")),
    ):
        for settings in backends(specs, where, bool((config.get("custom_imports") or {}).get("project"))):
            found.setdefault(settings.name, settings)
    for name in named(config.get("track")):
        found.setdefault(name, TrackerSettings(name))
    return WatchSettings(tuple(found.values()), pictures)


def backends(specs: Any, where: str, of_project: bool = False) -> Iterator[TrackerSettings]:
    """Yield the trackers among backends in the 1.x vocabulary; warn about those that terrazzo does not write to.

    Among these are any of a project's own.
    """
    names = {backend: name for name, backend in TRACKERS.items()}
    for spec in specs or () if isinstance(specs, (list, tuple)) else [specs or {"type": "LocalVisBackend"}]:
        spec = {"type": spec} if isinstance(spec, str) else spec
        check_keys(spec, spec, where)
        kind = str(spec.get("type", "")).rpartition(".")[2]
        if kind in ELSEWHERE or (of_project and kind not in OPTIONS):
            warnings.warn(f"{where}: terrazzo does not write to {kind}; it writes to {', '.join(TRACKERS)} (--track)")
            continue
        if kind not in OPTIONS:
            raise UserError(f"{where}: no backend is called '{kind}'{nearest(kind, OPTIONS)}")
        if kind not in names:  # the log and the pictures of the work dir, which are always written
            continue
        taken, without_effect = OPTIONS[kind]
        for key in spec:
            if key in without_effect:
                warnings.warn(f"{where}: '{key}' of {kind} has no effect here")
            elif key not in ("type", *taken):
                raise UserError(f"{where}: {kind} has no argument '{key}'{nearest(key, taken)}")
        options = {key: spec[key] for key in taken if spec.get(key) is not None}
        if "init_kwargs" in options:
            options["init_kwargs"] = wandb_labels(options["init_kwargs"], where)
        yield TrackerSettings(names[kind], options)


def wandb_labels(options: Any, where: str) -> dict[str, Any]:
    """Return the options of `wandb.init` that label a run; warn about others. Raises UserError."""
    if not isinstance(options, Mapping):
        raise UserError(f"{where}: init_kwargs is a dict of {', '.join(WANDB_LABELS)}, not {str(options)[:80]!r}")
    for key in options:
        if key not in WANDB_LABELS:
            way = "; set WANDB_MODE instead" if key == "mode" else "; WANDB_* variables of the environment set the rest"
            warnings.warn(f"{where}: '{key}' of init_kwargs has no effect here{way}")
    return {key: value for key, value in options.items() if key in WANDB_LABELS}


def named(track: Any) -> list[str]:
    """Return `track`, one name or a list, as a list. Raises UserError for an unknown one."""
    names = [track] if isinstance(track, str) else list(track or ())
    for name in names:
        if name not in TRACKERS:
            raise UserError(
                f"track: there is no tracker '{name}'{nearest(str(name), TRACKERS)} ({', '.join(TRACKERS)})"
            )
    return names
