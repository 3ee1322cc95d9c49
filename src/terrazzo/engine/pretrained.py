"""Weights of a backbone, from a path or the local cache; nothing is downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.models.checkpoint import Checkpoint, load_checkpoint, read_checkpoint


def cache_folder() -> Path:
    """Where weights are looked for: $TERRAZZO_HOME/weights, or the user's cache folder."""
    home = os.environ.get("TERRAZZO_HOME")
    return Path(home) / "weights" if home else Path.home() / ".cache" / "terrazzo" / "weights"


def find(name: str) -> Path:
    """The file for a path, URL or `scheme://name`. Raises UserError naming where it was looked for."""
    if Path(name).is_file():
        return Path(name)
    cached = cache_folder() / re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2] if name.startswith("http") else name)
    for candidate in (cached, cached.with_name(cached.name + ".pth"), cached.with_name(cached.name + ".safetensors")):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"the pretrained weights '{name}' are neither a file nor in the cache ({cached}), and nothing is downloaded "
        "unasked: give --pretrained PATH, or --pretrained none to start from random weights"
    )


def load_pretrained(model: Any, name: str | None) -> str:
    """Load a backbone's weights; `None` and "none" leave it random. Returns what happened, in a line."""
    if name is None or str(name).lower() == "none":
        return "backbone: random weights (no pretrained ones)"
    checkpoint = read_checkpoint(find(name))
    weights = {key.removeprefix("backbone."): value for key, value in checkpoint.weights.items()}
    report = load_checkpoint(model.backbone, Checkpoint(checkpoint.path, weights, checkpoint.meta))
    return f"backbone: {report}"
