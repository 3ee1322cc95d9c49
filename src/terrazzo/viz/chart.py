"""Line charts: as SVG text for a page, in its own text colour so that they suit light and dark; and as pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from terrazzo.viz.shapes import Dot, Line, Shape, Text, as_picture, as_svg

Points = Sequence[tuple[float, float]]

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d48", "#a855f7", "#ca8a04", "#06b6d4", "#ec4899")
MOST_POINTS = 400  # of a series; longer ones are averaged
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 58, 50


def line_chart(
    series: Mapping[str, Points],
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    width: int = 480,
    height: int = 300,
) -> str:
    """An SVG element that plots series of (x, y); `log` makes the y axis logarithmic.

    Points that are not finite are left out, and on a logarithmic axis those not above zero.
    """
    return as_svg(_shapes(series, title, x_label, y_label, log, width, height), title, width, height)


def line_picture(
    series: Mapping[str, Points],
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    width: int = 480,
    height: int = 300,
) -> np.ndarray:
    """The same chart as RGB pixels (2 * height, 2 * width, 3), on white."""
    return as_picture(_shapes(series, title, x_label, y_label, log, width, height), width, height)


def _shapes(
    series: Mapping[str, Points], title: str, x_label: str, y_label: str, log: bool, width: int, height: int
) -> list[Shape]:
    """Title, legend, axes and lines."""
    kept = {name: _thinned([p for p in points if _drawable(p, log)]) for name, points in series.items()}
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    spots = _legend_spots(list(kept), width)
    top = TOP + max((y for _, y in spots), default=0)
    x_axis = _Axis(xs, LEFT, width - RIGHT, count=6)
    y_axis = _Axis(ys, height - BOTTOM, top, count=5, log=log)
    shapes: list[Shape] = [
        Text(LEFT, 20, title, size=15),
        *_grid(x_axis, y_axis, width, height, top),
        Text((LEFT + width - RIGHT) / 2, height - 10, x_label, "middle", 0.75),
        Text(14, (top + height - BOTTOM) / 2, y_label, "middle", 0.75, upright=True),
    ]
    if not xs:
        shapes.append(Text((LEFT + width - RIGHT) / 2, (top + height - BOTTOM) / 2, "no data", "middle", 0.5))
    for index, ((name, points), (left, down)) in enumerate(zip(kept.items(), spots, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        shapes.append(Line([(left, 36 + down), (left + 14, 36 + down)], colour, 4))
        shapes.append(Text(left + 20, 40 + down, name, opacity=0.85))
        shapes += _line(name, [(x_axis.at(x), y_axis.at(y)) for x, y in points], points, colour)
    return shapes


def _legend_spots(names: Sequence[str], width: int) -> list[tuple[float, float]]:
    """Where the names of a legend stand: left edge, and distance below the first row."""
    spots: list[tuple[float, float]] = []
    left, down = float(LEFT), 0.0
    for name in names:
        length = 40 + 6.8 * len(name)
        if left > LEFT and left + length - 14 > width:
            left, down = float(LEFT), down + 16
        spots.append((left, down))
        left += length
    return spots


class _Axis:
    """Where a value lies between two pixels, and the round values to mark."""

    def __init__(self, values: list[float], start: float, stop: float, count: int, log: bool = False) -> None:
        self.start, self.stop, self.log = start, stop, log
        low, high = (min(values), max(values)) if values else ((0.1, 1.0) if log else (0.0, 1.0))
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1)
        if log:
            self.ticks = _log_ticks(low, high)
        else:
            step = _round_step((high - low) / count)
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            self.ticks = [step * index for index in range(first, last + 1)]
        self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])

    def at(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + (self.stop - self.start) * share


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with twos and fives between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    stride = max(1, math.ceil((last - first) / 7))
    ticks = [f * 10.0**power for power in range(first, last + 1, stride) for f in factors]
    below = max((tick for tick in ticks if tick <= low * 1.0001), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high * 0.9999), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]


def _label(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if abs(value) >= 1e4 else f"{value:.4g}"


def _grid(x_axis: _Axis, y_axis: _Axis, width: int, height: int, top: float) -> list[Shape]:
    shapes: list[Shape] = []
    floor, right = height - BOTTOM, width - RIGHT
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        shapes.append(Line([(LEFT, y), (right, y)], opacity=0.12))
        shapes.append(Text(LEFT - 8, y + 4, _label(tick), "end", 0.75))
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        shapes.append(Line([(x, floor), (x, floor + 5)], opacity=0.5))
        shapes.append(Text(x, floor + 19, _label(tick), "middle", 0.75))
    return [*shapes, Line([(LEFT, top), (LEFT, floor), (right, floor)], opacity=0.5)]


def _line(name: str, spots: list[tuple[float, float]], points: Points, colour: str) -> list[Shape]:
    """The line, and for a short series a dot at each point that shows its values to a pointer."""
    if not spots:
        return []
    dots = [
        Dot(x, y, 3, colour, f"{name}: {value:.4g} at {step:g}")
        for (x, y), (step, value) in zip(spots, points, strict=True)
    ]
    return [Line(spots, colour, 2), *(dots if len(dots) <= 40 else [])]


def _drawable(point: tuple[float, float], log: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (point[1] > 0 or not log)


def _thinned(points: Points) -> Points:
    """At most MOST_POINTS points: means of neighbours."""
    if len(points) <= MOST_POINTS:
        return points
    edges = [round(index * len(points) / MOST_POINTS) for index in range(MOST_POINTS + 1)]
    groups = [points[start:stop] for start, stop in pairwise(edges)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
