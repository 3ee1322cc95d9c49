"""Line charts as SVG text, to stand in a page: they take the page's text colour, so they suit light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

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
    kept = {name: _thinned([p for p in points if _drawable(p, log)]) for name, points in series.items()}
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    x_axis = _Axis(xs, LEFT, width - RIGHT, count=6)
    y_axis = _Axis(ys, height - BOTTOM, TOP, count=5, log=log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'style="width:100%;height:auto" aria-label="{escape(title)}" fill="currentColor" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
        *_grid(x_axis, y_axis, width, height),
        _text((LEFT + width - RIGHT) / 2, height - 10, x_label, "middle", 0.75),
        f'<text transform="translate(14 {(TOP + height - BOTTOM) / 2:.1f}) rotate(-90)" text-anchor="middle" '
        f'fill-opacity="0.75">{escape(y_label)}</text>',
    ]
    if not xs:
        parts.append(_text((LEFT + width - RIGHT) / 2, (TOP + height - BOTTOM) / 2, "no data", "middle", 0.5))
    left = float(LEFT)
    for index, (name, points) in enumerate(kept.items()):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{left:.0f}" y="34" width="14" height="4" rx="2" fill="{colour}"/>')
        parts.append(_text(left + 20, 40, name, "start", 0.85))
        left += 40 + 6.8 * len(name)
        parts += _line(name, [(x_axis.at(x), y_axis.at(y)) for x, y in points], points, colour)
    return "\n".join([*parts, "</svg>"])


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


def _text(x: float, y: float, words: str, anchor: str, opacity: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill-opacity="{opacity}">{escape(words)}</text>'


def _grid(x_axis: _Axis, y_axis: _Axis, width: int, height: int) -> list[str]:
    parts, floor = [], height - BOTTOM
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{width - RIGHT}" stroke="currentColor" stroke-opacity="0.12"/>')
        parts.append(_text(LEFT - 8, y + 4, _label(tick), "end", 0.75))
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        parts.append(f'<path d="M{x:.1f} {floor}v5" stroke="currentColor" stroke-opacity="0.5"/>')
        parts.append(_text(x, floor + 19, _label(tick), "middle", 0.75))
    parts.append(
        f'<path d="M{LEFT} {TOP}V{floor}H{width - RIGHT}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>'
    )
    return parts


def _line(name: str, spots: list[tuple[float, float]], points: Points, colour: str) -> list[str]:
    """The line, and for a short series a dot at each point that shows its values to a pointer."""
    if not spots:
        return []
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>']
    if len(spots) <= 40:
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(name)}: {value:.4g} at {step:g}</title></circle>"
            for (x, y), (step, value) in zip(spots, points, strict=True)
        ]
    return parts


def _drawable(point: tuple[float, float], log: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (point[1] > 0 or not log)


def _thinned(points: Points) -> Points:
    """At most MOST_POINTS points: means of neighbours."""
    if len(points) <= MOST_POINTS:
        return points
    edges = [round(index * len(points) / MOST_POINTS) for index in range(MOST_POINTS + 1)]
    groups = [points[start:stop] for start, stop in pairwise(edges)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
