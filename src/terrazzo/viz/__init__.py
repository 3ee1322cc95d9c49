"""Pictures of labels and predictions, charts, and reports in one HTML file; arrays in, arrays or text out."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "colour_map": "painting",
    "overlay": "painting",
    "error_map": "painting",
    "side_by_side": "layout",
    "legend": "layout",
    "add_legend": "layout",
    "default_palette": "palette",
    "line_chart": "chart",
    "write_report": "report",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"terrazzo.viz.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'terrazzo.viz' has no attribute '{name}'")
