"""The mean of several checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from terrazzo.checkpoints.writing import Written, description, save, writable
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import Checkpoint, read_checkpoint


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
            if not value.is_floating_point():
                sums[name] = value
            else:
                sums[name] = sums[name] + value.double() if name in sums else value.double()
    mean = {
        name: (total / len(sources)).to(checkpoint.weights[name].dtype) if total.is_floating_point() else total
        for name, total in sums.items()
    }
    meta = {key: value for key, value in description(checkpoint).items() if key not in ("metrics", "best_score")}
    save(path, mean, meta | {"averaged": [Path(source).name for source in sources]})
    return Written(path, len(mean), self_contained="config" in meta)


def check_same(sums: Mapping[str, Tensor], checkpoint: Checkpoint, first: str | Path) -> None:
    """Raise UserError where a checkpoint's names or shapes differ from those of the first."""
    differing = sorted(set(sums) ^ set(checkpoint.weights))
    if differing:
        raise UserError(
            f"{checkpoint.path} cannot be averaged with {first}: only one of them has {', '.join(differing[:5])}"
            + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        )
    for name, value in checkpoint.weights.items():
        if value.shape != sums[name].shape:
            raise UserError(
                f"{checkpoint.path} cannot be averaged with {first}: {name} is {tuple(value.shape)} there and "
                f"{tuple(sums[name].shape)} here"
            )
