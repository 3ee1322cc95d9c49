"""The config inside a checkpoint: ours as values, MMSegmentation's as the text of a file."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import Checkpoint


def saved_config(checkpoint: Checkpoint) -> Config | None:
    """A checkpoint's config in the 1.x vocabulary; None where it contains none that can be read.

    The text of a `.py` file is evaluated by the same safe subset of Python as any config.
    """
    for key in ("config", "cfg"):  # ours and 0.x; 1.x
        value = checkpoint.meta.get(key)
        found = None
        if isinstance(value, Mapping):
            found = Config({str(name): part for name, part in value.items()}, checkpoint.path)
        if isinstance(value, str) and value.strip():
            found = read_text(value)
        if found is not None and isinstance(found.get("model"), Mapping):
            return found
    return None


def read_text(text: str) -> Config | None:
    """A config from the text of a `.py` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about an older vocabulary: the user did not write this file
                return Config(load_config(path).to_dict())
        except UserError:
            return None


def describe(values: Mapping[str, Any], classes: Sequence[str], palette: Sequence[Sequence[int]]) -> dict[str, str]:
    """The texts that make a `.safetensors` file self-contained, with names in place of what the environment holds."""
    values = values.shareable() if isinstance(values, Config) else values
    kept = ("model", "custom_imports", "data_preprocessor", "test_dataloader", "val_dataloader")
    config = {key: values[key] for key in kept if key in values}
    return {
        "format": "terrazzo",
        "config": json.dumps(config),
        "classes": json.dumps(list(classes)),
        "palette": json.dumps([list(map(int, colour)) for colour in palette]),
    }
