"""Intervals one below the other, as an SVG element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terrazzo.system.printable import caption, printable
from terrazzo.viz.chart import COLOURS, INK, TOOLTIP, as_svg, new_figure, plotting

WIDTH, ROW = 900, 22  # units of the figure
BETTER, WORSE = COLOURS[2], COLOURS[3]


@dataclass(frozen=True)
class Interval:
    """A difference with its interval; one that `counts` is coloured by its sign."""

    name: str
    low: float
    value: float
    high: float
    counts: bool


def interval_chart(rows: Sequence[Interval], title: str, x_label: str) -> str:
    """Return an SVG element that shows each interval around its value, above an axis with a line at zero."""
    with plotting(title, x_label, *(row.name for row in rows)):
        figure = new_figure(WIDTH, 80 + ROW * len(rows))
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1)
        for index, row in enumerate(rows):
            colour = INK if not row.counts else BETTER if row.value > 0 else WORSE
            said = f"{TOOLTIP}{caption(row.name)}: {row.value:+.2f}, {row.low:+.2f} to {row.high:+.2f}"
            axes.plot([row.low, row.high], [index, index], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(row.value, index, "o", color=colour, markersize=6, gid=said)
        axes.set_yticks(range(len(rows)), [caption(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(x_label)
        axes.set_title(printable(title), loc="left", fontsize=14, fontweight="bold")
        axes.grid(axis="x")
        return as_svg(figure, title)
