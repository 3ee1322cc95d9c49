"""Curves of several runs as one picture or one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from terrazzo.system.arithmetic import ceil_div
from terrazzo.viz.chart import Points, as_pixels, draw_lines, line_chart, new_figure, plotting
from terrazzo.viz.report import write_report

COLUMNS = 2
MOST_IN_ONE_COLUMN = 3  # charts; more are drawn in COLUMNS
WIDTH, HEIGHT = 480, 300


@dataclass(frozen=True)
class Curves:
    """One chart: the same value in each run, by the run's name."""

    title: str
    value: str
    series: Mapping[str, Points]


def write_picture(path: Path, charts: Sequence[Curves]) -> None:
    """Write all charts as a PNG, two side by side where there are many."""
    columns = COLUMNS if len(charts) > MOST_IN_ONE_COLUMN else 1
    rows = ceil_div(len(charts), columns)
    with plotting(*(name for chart in charts for name in chart.series)):
        figure = new_figure(WIDTH * columns, HEIGHT * rows)
        for index, chart in enumerate(charts, 1):
            draw_lines(figure.add_subplot(rows, columns, index), chart.series, chart.title, "step", chart.value)
        Image.fromarray(as_pixels(figure)).save(path, "png")


def write_page(path: Path, charts: Sequence[Curves], summary: Sequence[tuple[str, str]]) -> None:
    """Write all charts as one HTML file, under a summary of (run, result)."""
    svgs = [line_chart(chart.series, chart.title, "step", chart.value) for chart in charts]
    write_report(path, "Runs" if len(summary) > 1 else "Run", summary, svgs)
