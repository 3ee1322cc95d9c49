"""Checkpoints for publishing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from terrazzo.checkpoints.writing import Written, description, save, writable
from terrazzo.errors import UserError
from terrazzo.hub.cache import sha256
from terrazzo.hub.names import digits
from terrazzo.models.checkpoint import read_checkpoint
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
    meta = description(checkpoint, paths=False)
    values = {name: halved(name, value) for name, value in checkpoint.weights.items()} if half else checkpoint.weights
    temporary = path.with_name(f".{path.stem}.publish{path.suffix}")
    try:
        save(temporary, values, meta)
        stem = path.name.removesuffix(path.suffix)
        old = digits(path.name)
        stem = stem[: -len(old) - 1] if old else stem
        final = writable(path.with_name(f"{stem}-{sha256(temporary)[:8]}{path.suffix}"), force)
        rename_durably(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(final, len(checkpoint.weights), self_contained="config" in meta)


def halved(name: str, value: Tensor) -> Tensor:
    """A weight in 16 bits; biases and the parameters of norms stay unchanged. Raises UserError if it does not fit."""
    if value.ndim < 2 or not value.is_floating_point():
        return value
    if value.abs().max() > torch.finfo(torch.float16).max:
        raise UserError(f"{name} contains {value.abs().max():.3g}, which exceeds 16 bits: publish without --half")
    return value.half()
