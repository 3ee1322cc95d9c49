"""Checkpoints as modules read and write them themselves; nothing is unpickled or downloaded."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.hub.cache import find_cached
from terrazzo.models.checkpoint import read_checkpoint


class MissingFile(UserError, OSError):
    """Weights that are neither a file nor in a cache."""


def _load_checkpoint(filename: str, map_location: Any = None, logger: Any = None) -> dict[str, Any]:
    """The weights of a file, or of one that is in a cache, under `state_dict`. Raises UserError where it is neither."""
    try:
        path: Any = filename if Path(filename).is_file() else find_cached(str(filename))
    except UserError as problem:
        raise MissingFile(str(problem)) from None
    return {"state_dict": OrderedDict(read_checkpoint(path).weights), "meta": {}}


class CheckpointLoader:
    """`_load_checkpoint` as a class."""

    @staticmethod
    def load_checkpoint(filename: str, map_location: Any = None, logger: Any = None) -> dict[str, Any]:
        return _load_checkpoint(filename, map_location, logger)


def _load_checkpoint_with_prefix(prefix: str, filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """A file's weights whose names begin with a prefix, without it."""
    prefix = prefix.rstrip(".") + "."
    found = _load_checkpoint(filename)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def load_state_dict(module: nn.Module, state_dict: Any, strict: bool = False, logger: Any = None) -> None:
    """Load the weights whose names and shapes fit; with `strict` others are a RuntimeError."""
    own = module.state_dict()
    fitting = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    wrong = (set(state_dict) ^ set(own)) | {name for name in own if name in state_dict and name not in fitting}
    module.load_state_dict(fitting, strict=False)
    if wrong:
        text = f"weights that do not fit: {', '.join(sorted(wrong)[:8])}{' ...' * (len(wrong) > 8)}"
        if strict:
            raise RuntimeError(text)
        from terrazzo.compat.processes import print_log

        print_log(text, logger)


def load_checkpoint(
    model: nn.Module, filename: str, map_location: Any = None, strict: bool = False, logger: Any = None,
    revise_keys: Any = ((r"^module\.", ""),),
) -> dict[str, Any]:  # fmt: skip
    """Load a file into a model, its names changed by `revise_keys` (pattern, replacement)."""
    import re

    checkpoint = _load_checkpoint(filename)
    weights = checkpoint["state_dict"]
    for pattern, replacement in revise_keys:
        weights = OrderedDict((re.sub(pattern, replacement, name), value) for name, value in weights.items())
    load_state_dict(model, weights, strict, logger)
    return checkpoint


_load_checkpoint_to_model = load_state_dict


def get_state_dict(module: nn.Module, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
    return module.state_dict(prefix=prefix, keep_vars=keep_vars)


def weights_to_cpu(state_dict: Any) -> Any:
    return OrderedDict((name, value.cpu()) for name, value in state_dict.items())


def save_checkpoint(model_or_checkpoint: Any, filename: str, optimizer: Any = None, meta: Any = None, **_: Any) -> None:
    """Write weights as a file that torch reads."""
    found = model_or_checkpoint
    content = (
        {"state_dict": weights_to_cpu(found.state_dict()), "meta": meta or {}}
        if isinstance(found, nn.Module)
        else found
    )
    Path(filename).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, filename)
