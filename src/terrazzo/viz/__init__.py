"""Pictures of labels and predictions, charts, and reports in one HTML file; arrays in, arrays or text out."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "colour_map": "terrazzo.system.painting",
    "overlay": "terrazzo.system.painting",
    "error_map": "terrazzo.system.painting",
    "side_by_side": "terrazzo.viz.layout",
    "legend": "terrazzo.viz.layout",
    "add_legend": "terrazzo.viz.layout",
    "default_palette": "terrazzo.system.palette",
    "line_chart": "terrazzo.viz.chart",
    "write_report": "terrazzo.viz.report",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'terrazzo.viz' has no attribute '{name}'")
