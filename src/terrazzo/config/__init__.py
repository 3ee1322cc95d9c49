"""Configs: read files, evaluate them safely, merge them, and remember where every key was set."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Config": "config",
    "apply_overrides": "reading.merge",
    "parse_override": "reading.merge",
    "read_config": "reading.files",
}

__all__ = ["Config", "apply_overrides", "parse_override", "read_config"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
