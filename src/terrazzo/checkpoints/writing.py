"""Writing checkpoint files: weights with a description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.inference.saved_config import describe, saved_config
from terrazzo.models.checkpoint import Checkpoint, LoadReport, from_json, legend_of
from terrazzo.system.files import make_folder, write_atomically

SUFFIXES = (".safetensors", ".pth")
DATA_PATHS = ("data_root", "data_prefix", "ann_file", "img_dir", "ann_dir", "split")  # keys that depend on a machine
KEPT = ("step", "epoch", "iter", "metrics", "best_score", "mmseg_version", "mmengine_version")  # of a file's meta


@dataclass(frozen=True)
class Written:
    """A written file and its contents."""

    path: Path
    tensors: int
    report: LoadReport | None = None
    self_contained: bool = False


def writable(path: Path, force: bool, sources: Sequence[str | Path] = ()) -> Path:
    """A path for a new file. Raises UserError for another kind of file, and for one that exists already."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a checkpoint is written as {' or '.join(SUFFIXES)}")
    if any(Path(source).resolve() == path.resolve() for source in sources):
        raise UserError(f"{path} is both read and written: choose another name for the new file")
    if path.exists() and not force:
        raise UserError(f"{path} exists already: choose another name, or --force to replace it")
    make_folder(path.parent)
    return path


def known(checkpoint: Checkpoint) -> dict[str, Any]:
    """The records of a checkpoint's run and its classes, as plain values."""
    classes, palette = legend_of(checkpoint)
    found = {key: plain(checkpoint.meta[key]) for key in KEPT if key in checkpoint.meta}
    found = {key: value for key, value in found.items() if value is not None}
    return found | ({"classes": classes} if classes else {}) | ({"palette": palette} if palette else {})


def description(checkpoint: Checkpoint, *, paths: bool = True) -> dict[str, Any]:
    """The description of a new file; with a config, where the checkpoint has one, the file is self-contained.

    Without `paths` the config omits the paths of the data.
    """
    config = saved_config(checkpoint)
    meta = known(checkpoint)
    if config is None:
        return meta
    classes, palette = legend_of(checkpoint)
    values = config.to_dict()
    return meta | describe(values if paths else without_paths(values), classes, palette)


def without_paths(values: Any) -> Any:
    """A config without the paths of its data."""
    if isinstance(values, Mapping):
        return {key: without_paths(value) for key, value in values.items() if key not in DATA_PATHS}
    return [without_paths(value) for value in values] if isinstance(values, (list, tuple)) else values


def plain(value: Any) -> Any:
    """A value as JSON stores it; None for stand-ins and other objects."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) else None


def save(path: Path, weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Written:
    """Write weights and their description as safetensors or as torch.save does, according to the path's suffix."""
    tensors = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    if path.suffix == ".safetensors":
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()}
        write_atomically(path, lambda temporary: save_file(tensors, str(temporary), metadata=texts))
    else:
        values = {key: from_json(value) if isinstance(value, str) else value for key, value in meta.items()}
        values["dataset_meta"] = {key: values.pop(key) for key in ("classes", "palette") if key in values}  # as in 1.x
        write_atomically(path, lambda temporary: save_pickle(temporary, {"meta": values, "state_dict": tensors}))
    return Written(path, len(tensors), self_contained="config" in meta)


def save_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save, whose bytes do not depend on the path."""
    with path.open("wb") as file:
        torch.save(content, file)
