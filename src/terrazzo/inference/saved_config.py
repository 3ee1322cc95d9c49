"""The config that a checkpoint brings along: ours as values, MMSegmentation's as the text of a file."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from terrazzo.config.config import Config
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import Checkpoint


def saved_config(checkpoint: Checkpoint) -> Config | None:
    """A checkpoint's config in the 1.x vocabulary; None where it brings none that can be read.

    The text of a `.py` file is evaluated by the same safe subset of Python as any config.
    """
    for key in ("config", "cfg"):  # ours and 0.x; 1.x
        value = checkpoint.meta.get(key)
        if isinstance(value, Mapping):
            return Config(dict(value), checkpoint.path)
        if isinstance(value, str) and value.strip():
            return read_text(value)
    return None


def read_text(text: str) -> Config | None:
    """A config from the text of a `.py` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an older vocabulary: the file is not one that the user wrote
                return Config(load_config(path).to_dict())
        except UserError:
            return None
