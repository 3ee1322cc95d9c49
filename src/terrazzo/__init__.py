"""Semantic segmentation in plain PyTorch: MMSegmentation's configs, recipes and checkpoints, unchanged."""

from __future__ import annotations

import importlib
import os
from typing import Any

from terrazzo.system import limits as _limits  # noqa: F401 - before OpenCV

__version__ = "0.1.0"
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # our own messages name the file that OpenCV cannot decode

# public name -> the module that defines it; imported at first use, so that `import terrazzo` stays fast
_PUBLIC = {
    "build_model": "terrazzo.models",
    "evaluate": "terrazzo.evaluation.evaluate",
    "export": "terrazzo.exporting.export",
    "load": "terrazzo.inference.load",
    "load_checkpoint": "terrazzo.models.checkpoint",
    "load_config": "terrazzo.config.load",
    "train": "terrazzo.training.train",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "recipes":
        return importlib.import_module("terrazzo.recipes")
    raise AttributeError(f"module 'terrazzo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, "recipes"])
