"""Checkpoints as modules read and write them themselves; nothing is unpickled or downloaded."""

import logging
import re
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
    try:
        path: Any = filename if Path(filename).is_file() else find_cached(str(filename))
    except UserError as problem:
        raise MissingFile(str(problem)) from None
    return {"state_dict": OrderedDict(read_checkpoint(path).weights), "meta": {}}


def _load_checkpoint_with_prefix(prefix: str, filename: str, map_location: Any = None) -> dict[str, Tensor]:
    start, found = prefix.rstrip(".") + ".", _load_checkpoint(filename)["state_dict"]
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}


def load_state_dict(module: nn.Module, state_dict: Any, strict: bool = False, logger: Any = None) -> None:
    own = module.state_dict()
    fitting = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict(fitting, strict=False)
    if wrong := (set(state_dict) | set(own)) - set(fitting):
        text = f"weights that do not fit: {', '.join(sorted(wrong)[:8])}{' ...' * (len(wrong) > 8)}"
        if strict:
            raise RuntimeError(text)
        logging.getLogger("terrazzo").warning(text)


def load_checkpoint(
    model: nn.Module, filename: str, map_location: Any = None, strict: bool = False, logger: Any = None,
    revise_keys: Any = ((r"^module\.", ""),),
) -> dict[str, Any]:  # fmt: skip
    checkpoint = _load_checkpoint(filename)
    weights = checkpoint["state_dict"]
    for pattern, replacement in revise_keys:
        weights = OrderedDict((re.sub(pattern, replacement, name), value) for name, value in weights.items())
    load_state_dict(model, weights, strict, logger)
    return checkpoint


def save_checkpoint(model_or_checkpoint: Any, filename: str, optimizer: Any = None, meta: Any = None, **_: Any) -> None:
    found = model_or_checkpoint
    if isinstance(found, nn.Module):
        found = {"state_dict": TABLE["weights_to_cpu"](found.state_dict()), "meta": meta or {}}
    Path(filename).parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, filename)


TABLE: dict[str, Any] = {
    "weights_to_cpu": lambda state_dict: OrderedDict((name, value.cpu()) for name, value in state_dict.items()),
    "CheckpointLoader": type("CheckpointLoader", (), {"load_checkpoint": staticmethod(_load_checkpoint)}),
    "_load_checkpoint_to_model": load_state_dict,
    "get_state_dict": lambda module, destination=None, **options: module.state_dict(**options),
}
