"""From files to training samples: pure functions on arrays and thin declared transforms over them."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"Compose": "compose", "Transform": "base", "read_image": "decode", "read_label": "label_files"}

__all__ = ["Compose", "Transform", "read_image", "read_label"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
