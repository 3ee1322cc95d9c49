"""New checkpoint files from others: for publishing, averaged, or in the other format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import open_tree
from terrazzo.errors import UserError
from terrazzo.hub.cache import sha256
from terrazzo.hub.names import digits
from terrazzo.inference.likeness import fingerprint
from terrazzo.inference.load import load
from terrazzo.inference.saved_config import describe, saved_config
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import (
    Checkpoint,
    LoadReport,
    from_json,
    is_constant,
    legend_of,
    load_checkpoint,
    needed_names,
    read_checkpoint,
)
from terrazzo.system.files import make_folder, rename_durably, write_atomically, write_safetensors
from terrazzo.training.fingerprint import described, images_of

SUFFIXES = (".safetensors", ".pth")
DATA_PATHS = ("data_root", "data_prefix", "ann_file", "img_dir", "ann_dir", "split")  # keys that depend on a machine
# of a file's meta
KEPT = (
    "step", "epoch", "iter", "metrics", "best_score", "mmseg_version", "mmengine_version", "training_images",
)  # fmt: skip


def publish(
    source: str | Path,
    target: str | Path,
    *,
    weights: str | None = None,
    half: bool = False,
    data: Any = None,
    force: bool = False,
) -> Written:
    """Write the weights and the description of a checkpoint, without the optimizer and the records of its run.

    The new file's name gets the first eight digits of its sha256, and its config omits the paths of the data. `half`
    stores matrices and convolutions in 16 bits. The fingerprint of the training images is the checkpoint's own, or that
    of the data of a config, `data`, with the model's confidence on its validation images.

    Raises UserError if the file exists already, unless `force` is set, and for weights that do not fit in 16 bits.
    """
    path = writable(Path(target), force=True)
    checkpoint = read_checkpoint(source, weights)
    values = {name: halved(name, value) for name, value in checkpoint.weights.items()} if half else checkpoint.weights
    temporary = path.with_name(f".{path.stem}.publish{path.suffix}")
    try:
        own = fingerprint_from(data, checkpoint, source, weights) if data is not None else {}
        written = save(temporary, values, description(checkpoint, paths=False) | own)
        stem = path.name.removesuffix(path.suffix)
        old = digits(path.name)
        stem = stem[: -len(old) - 1] if old else stem
        final = writable(path.with_name(f"{stem}-{sha256(temporary)[:8]}{path.suffix}"), force)
        rename_durably(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return replace(written, path=final)


def fingerprint_from(data: Any, checkpoint: Checkpoint, source: str | Path, weights: str | None) -> dict[str, str]:
    """The fingerprint of a config's training images, as the entry of a description."""
    config = load_config(data)
    experiment = make_experiment(config)
    train, val = (open_tree(loader.dataset) if loader else None for loader in (experiment.train, experiment.val))
    is_whole = saved_config(checkpoint) is not None
    segmenter = load(source, weights=weights) if is_whole else load(config, source, weights=weights)
    confidences = [
        segmenter.predict_together([(image, None)])[0].mean_confidence() for image in (images_of(val) if val else ())
    ]
    return described(fingerprint(images_of(train)) if train else None, confidences)


def halved(name: str, value: Tensor) -> Tensor:
    """A weight in 16 bits; biases and the parameters of norms stay unchanged. Raises UserError if it does not fit."""
    if value.ndim < 2 or not value.is_floating_point():
        return value
    if value.abs().max() > torch.finfo(torch.float16).max:
        raise UserError(f"{name} contains {value.abs().max():.3g}, which exceeds 16 bits: publish without --half")
    return value.half()


def average(
    target: str | Path, sources: Sequence[str | Path], *, weights: str | None = None, force: bool = False
) -> Written:
    """Write the mean of several checkpoints' weights; integers and the description come from the last one.

    Raises UserError where names or shapes differ, naming them.
    """
    path = writable(Path(target), force, sources)
    if len(sources) < 2:
        raise UserError("to average, give two checkpoints or more")
    sums: dict[str, Tensor] = {}
    checkpoint = Checkpoint(path, {})
    for source in sources:
        checkpoint = read_checkpoint(source, weights)
        if sums:
            check_same(sums, checkpoint, sources[0])
        for name, value in checkpoint.weights.items():
            if value.is_floating_point():
                value = sums[name] + value.double() if name in sums else value.double()
            sums[name] = value
    mean = {
        name: (total / len(sources)).to(checkpoint.weights[name].dtype) if total.is_floating_point() else total
        for name, total in sums.items()
    }
    meta = {key: value for key, value in description(checkpoint).items() if key not in ("metrics", "best_score")}
    return save(path, mean, meta | {"averaged": [Path(source).name for source in sources]})


def check_same(sums: Mapping[str, Tensor], checkpoint: Checkpoint, first: str | Path) -> None:
    """Raise UserError where a checkpoint's names or shapes differ from those of the first."""
    own, wanted = (
        {name: tuple(value.shape) for name, value in values.items()} for values in (checkpoint.weights, sums)
    )
    differing = sorted(name for name in own | wanted if own.get(name) != wanted.get(name))
    if differing:
        shapes = [f"{name} is {own.get(name, 'absent')} and {wanted.get(name, 'absent')}" for name in differing[:5]]
        more = f", and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(f"{checkpoint.path} cannot be averaged with {first}: {', '.join(shapes)}{more}")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    config: Any = None,
    weights: str | None = None,
    force: bool = False,
    trust: bool = False,
) -> Written:
    """Write a checkpoint in the other format, with a `config` under the names of its model.

    Weights that the model does not have are omitted. The new file is self-contained if it has all that the config's
    model needs. Raises UserError where nothing fits the model.
    """
    path = writable(Path(target), force, [source])
    checkpoint = read_checkpoint(source, weights)
    if config is None:
        return save(path, checkpoint.weights, description(checkpoint))
    values = load_config(config, trust=trust)
    model = build_model(values.to_dict())
    report = load_checkpoint(model, checkpoint)
    own = model.state_dict()
    loaded = {name: own[name] for name in own if name in report.loaded}
    complete = not needed_names(model) - set(loaded)
    if complete:
        loaded |= {name: value for name, value in own.items() if is_constant(name)}
    meta = known(checkpoint) | (describe(values, *legend_of(checkpoint)) if complete else {})
    return replace(save(path, loaded, meta), report=report)


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
    found = {key: checkpoint.meta[key] for key in KEPT if key in checkpoint.meta}
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


def save(path: Path, weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Written:
    """Write weights and their description as safetensors or as torch.save does, according to the path's suffix."""
    tensors = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    if path.suffix == ".safetensors":
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()}
        write_safetensors(path, tensors, texts)
    else:
        values = {key: from_json(value) if isinstance(value, str) else value for key, value in meta.items()}
        values["dataset_meta"] = {key: values.pop(key) for key in ("classes", "palette") if key in values}  # as in 1.x
        write_atomically(path, lambda temporary: save_pickle(temporary, {"meta": values, "state_dict": tensors}))
    return Written(path, len(tensors), self_contained="config" in meta)


def save_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save, whose bytes do not depend on the path."""
    with path.open("wb") as file:
        torch.save(content, file)
