"""Semantic segmentation in plain PyTorch: MMSegmentation's configs, recipes and checkpoints, unchanged."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
