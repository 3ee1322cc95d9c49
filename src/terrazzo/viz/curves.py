"""Curves of several runs as one picture or one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from terrazzo.viz.chart import Points, line_chart, line_picture
from terrazzo.viz.report import write_report

COLUMNS = 2
MOST_ROUND = 3  # charts that stand in one column


@dataclass(frozen=True)
class Curves:
    """One chart: the same value in each run, by the run's name."""

    title: str
    value: str
    series: Mapping[str, Points]


def write_picture(path: Path, charts: Sequence[Curves]) -> None:
    """All charts as a PNG, two beside each other where there are many."""
    pictures = [line_picture(chart.series, chart.title, "step", chart.value) for chart in charts]
    columns = COLUMNS if len(pictures) > MOST_ROUND else 1
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], axis=1) for start in range(0, len(pictures), columns)]
    Image.fromarray(np.concatenate(rows)).save(path, "png")


def write_page(path: Path, charts: Sequence[Curves], summary: Sequence[tuple[str, str]]) -> None:
    """All charts as one HTML file, under a summary of (run, result)."""
    svgs = [line_chart(chart.series, chart.title, "step", chart.value) for chart in charts]
    write_report(path, "Runs" if len(summary) > 1 else "Run", summary, svgs)
