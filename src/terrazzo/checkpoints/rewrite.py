"""New checkpoint files from others: for publishing, averaged, or in the other format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrazzo.checkpoints.writing import Written, description, known, save, writable
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.hub.cache import sha256
from terrazzo.hub.names import digits
from terrazzo.inference.saved_config import describe
from terrazzo.models.build import build_model
from terrazzo.models.checkpoint import (
    Checkpoint,
    is_constant,
    legend_of,
    load_checkpoint,
    needed_names,
    read_checkpoint,
)
from terrazzo.system.files import rename_durably


def publish(
    source: str | Path, target: str | Path, *, weights: str | None = None, half: bool = False, force: bool = False
) -> Written:
    """Write the weights and the description of a checkpoint, without the optimizer and the records of its run.

    The new file's name gets the first eight digits of its sha256, and its config omits the paths of the data. `half`
    stores matrices and convolutions in 16 bits. Raises UserError if the file exists already, unless `force` is set, and
    for weights that do not fit in 16 bits.
    """
    path = writable(Path(target), force=True)
    checkpoint = read_checkpoint(source, weights)
    values = {name: halved(name, value) for name, value in checkpoint.weights.items()} if half else checkpoint.weights
    temporary = path.with_name(f".{path.stem}.publish{path.suffix}")
    try:
        written = save(temporary, values, description(checkpoint, paths=False))
        stem = path.name.removesuffix(path.suffix)
        old = digits(path.name)
        stem = stem[: -len(old) - 1] if old else stem
        final = writable(path.with_name(f"{stem}-{sha256(temporary)[:8]}{path.suffix}"), force)
        rename_durably(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return replace(written, path=final)


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
    values = load_config(config, trust=trust).to_dict()
    model = build_model(values)
    report = load_checkpoint(model, checkpoint)
    own = model.state_dict()
    loaded = {name: own[name] for name in own if name in report.loaded}
    complete = not needed_names(model) - set(loaded)
    if complete:
        loaded |= {name: value for name, value in own.items() if is_constant(name)}
    meta = known(checkpoint) | (describe(values, *legend_of(checkpoint)) if complete else {})
    return replace(save(path, loaded, meta), report=report)
