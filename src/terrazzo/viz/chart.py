"""Line charts: as SVG in the text colour of the page around them, so that they suit light and dark, and as pictures."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from terrazzo.system.printable import as_html, caption, printable
from terrazzo.viz.fonts import fonts_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d48", "#a855f7", "#ca8a04", "#06b6d4", "#ec4899")
INK = "#20242a"
UNITS_PER_INCH = 72  # of an SVG; sizes of figures and of text are given in its units
MOST_POINTS = 400  # of a series; longer ones are averaged
MOST_MARKERS = 40  # of a series; longer ones are plain lines
CHARACTERS = 74  # that a legend's line holds in a chart of the usual width
FAMILY = "DejaVu Sans"  # bundled with matplotlib
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "terrazzo",
    "text.parse_math": False,
    "font.size": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.title_fontsize": 14,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def line_chart(
    series: Mapping[str, Points],
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    width: int = 480,
    height: int = 300,
) -> str:
    """Return an SVG element that plots series of (x, y); `log` makes the y axis logarithmic.

    Points that are not finite are skipped, and on a logarithmic axis those not above zero.
    """
    with plotting(title, x_label, y_label, *series):
        figure = new_figure(width, height)
        draw_lines(figure.subplots(), series, title, x_label, y_label, log)
        return as_svg(figure, title)


@contextmanager
def plotting(*texts: str) -> Iterator[None]:
    """Matplotlib's own defaults and SETTINGS, whatever the user's are, with fonts for the scripts of some texts."""
    from matplotlib import style
    from matplotlib.font_manager import FontProperties, fontManager

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # of a script's font without bold letters
    families = [FAMILY]
    for path in fonts_for(texts):
        fontManager.addfont(path)
        families.append(FontProperties(fname=path).get_name())
    with style.context(["default", SETTINGS | {"font.family": families}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*(Glyph|glyph)")
        yield


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure that belongs to no window, its size in units of an SVG. Call it, draw and save in `plotting`."""
    from matplotlib.figure import Figure

    return Figure((width / UNITS_PER_INCH, height / UNITS_PER_INCH), layout=layout)


def draw_lines(
    axes: Axes, series: Mapping[str, Points], title: str, x_label: str, y_label: str, log: bool = False
) -> None:
    """Draw series as lines, the short ones with a marker at each point, under the title and the legend."""
    if log:
        axes.set_yscale("log")
    lines, drawn = [], 0
    names = [caption(name) for name in series]
    for index, (name, points) in enumerate(zip(names, series.values(), strict=True)):
        kept = thinned([point for point in points if drawable(point, log)])
        colour = COLOURS[index % len(COLOURS)]
        lines += axes.plot([x for x, _ in kept], [y for _, y in kept], color=colour, linewidth=2)
        drawn += len(kept)
        for x, y in kept if len(kept) <= MOST_MARKERS else ():
            axes.plot(x, y, "o", color=colour, markersize=5, gid=f"{TOOLTIP}{name}: {y:.4g} at {x:g}")
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", alpha=0.5, transform=axes.transAxes)

    label_axes(axes, log)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    columns = max(1, CHARACTERS // (5 + max(map(len, names), default=1)))
    legend = axes.legend(
        lines, names, title=printable(title), ncols=min(columns, max(1, len(names))), alignment="left",
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0.2, handlelength=1.2,
    )  # fmt: skip
    legend.get_title().set_fontweight("bold")


def label_axes(axes: Axes, log: bool) -> None:
    """Few round ticks with short labels, and lines across at those of the y axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for axis, count in ((axes.xaxis, 7), (axes.yaxis, 6)):
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=axis is axes.xaxis))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    if log:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y")


def short_number(value: float) -> str:
    """A tick's value, with k for thousands and M for millions."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if abs(value) >= 1e4 else f"{value:.4g}".replace("e-0", "e-")


TOOLTIP = "tooltip "  # begins the id of what shows the rest of the id to a pointer


def as_svg(figure: Figure, label: str) -> str:
    """Return an SVG element as wide as its container, in the text colour and typeface of the page; deterministic."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    head = f'role="img" aria-label="{as_html(label)}" style="width:100%;height:auto"'
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', lambda _: head, svg, count=1)
    svg = re.sub(rf"""<g id=(["']){TOOLTIP}(.*?)\1>""", r"<g><title>\2</title>", svg)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # a page has several charts, but each id once
    svg = re.sub(rf"'{FAMILY}'[^;\"]*", "system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor")


def as_pixels(figure: Figure, scale: float = 2, tight: bool = False) -> np.ndarray:
    """Return RGB pixels, `scale` per unit of the figure; `tight` fits the margins to what is drawn there."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=scale * UNITS_PER_INCH, bbox_inches="tight" if tight else None)
    return np.array(Image.open(written).convert("RGB"))


def drawable(point: tuple[float, float], log: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (point[1] > 0 or not log)


def thinned(points: Points) -> Points:
    """Reduce points to at most MOST_POINTS means of neighbours."""
    if len(points) <= MOST_POINTS:
        return points
    edges = [round(index * len(points) / MOST_POINTS) for index in range(MOST_POINTS + 1)]
    groups = [points[start:stop] for start, stop in pairwise(edges)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
