"""A comparison as one HTML page, and as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from terrazzo.evaluation.compare import Outcome, Ranking, as_p, signed
from terrazzo.metrics.paired import LEVEL
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.printable import as_html
from terrazzo.viz.intervals import Interval, interval_chart
from terrazzo.viz.page import html_page, legend_list, picture_rows
from terrazzo.viz.report import Cell, data_uri, summary_cards, table_card

NOTE = (
    "Intervals and p-values are about the choice of images: would the difference hold on others of their kind? "
    "Training again with another seed changes scores too."
)


def write_comparison(path: Path, ranking: Ranking, speeds: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the page, with what `time_models` has measured, and return its path. Raises UserError where it cannot."""
    first = ranking.contestants[0].name
    colours = dict(zip(ranking.classes, ranking.palette, strict=True))
    rows = [dict(zip(columns(bool(speeds)), row, strict=True)) for row in model_rows(ranking, speeds)]
    parts = [summary_cards([(one.name, f"{one.mIoU:.2f}") for one in ranking.contestants])]
    parts.append(f"<h2>Models</h2>{table_card(rows)}")
    for outcome in ranking.outcomes:
        parts.append(f"<h2>{as_html(outcome.name)} against {as_html(first)}</h2>")
        parts.append(f"<p>{as_html(outcome.verdict(first))}</p>")
        parts.append(f'<div class="card curves">{chart(outcome)}</div>')
        parts.append(f"<h2>Per class</h2>{table_card(class_rows(outcome, first), colours)}")
        if outcome.pictures:
            pictures = picture_rows([(caption, data_uri(image)) for caption, image in row] for row in outcome.pictures)
            parts.append(f"<h2>Worst regressions</h2>{legend_list(colours.items())}{pictures}")
    make_folder(path.parent)
    names = ", ".join(one.name for one in ranking.contestants)
    write_whole(path, html_page(names, parts, f"mIoU on {ranking.images} images, in percent. {NOTE}"))
    return path


def columns(timed: bool) -> tuple[str, ...]:
    """The heads of `model_rows`."""
    return ("model", "mIoU", "parameters", *(("file", "time", "speed", "memory") if timed else ()))


def model_rows(ranking: Ranking, speeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Each model's score, its parameters, and where it was timed its size, its time for an image and its memory."""
    rows = []
    for index, one in enumerate(ranking.contestants):
        count = one.parameters
        row = [one.name, f"{one.mIoU:.2f}", "-" if count is None else f"{count / 1e6:.2f} M"]
        if speeds:
            figures = speeds[index]
            memory = figures.get("memory")
            row += [
                f"{figures['bytes'] / 2**20:.1f} MiB",
                f"{1000 * figures['median']:.1f} ms" if "median" in figures else "-",
                f"{figures['speed']:.2f}x" if "speed" in figures else "-",
                "-" if memory is None else f"{memory / 2**20:.0f} MiB",
            ]
        rows.append(tuple(row))
    return rows


def class_rows(outcome: Outcome, first: str) -> list[dict[str, Cell]]:
    """The IoU of each class in both models, their difference and its p-value."""
    return [
        {
            "class": name,
            first: found.first,
            outcome.name: found.second,
            "difference": signed(found.value),
            "95% interval": f"{signed(found.low)} to {signed(found.high)}",
            "p": as_p(outcome.class_p[name]).removeprefix("= "),
            "images": str(found.images),
        }
        for name, found in outcome.differences.items()
        if name != "mIoU"
    ]


def chart(outcome: Outcome) -> str:
    """The differences with their intervals, coloured where they are beyond chance."""
    p_values = {"mIoU": outcome.p} | outcome.class_p
    rows = [
        Interval(name, found.low, found.value, found.high, p_values[name] < LEVEL)
        for name, found in outcome.differences.items()
    ]
    return interval_chart(rows, "Difference of IoU", "points")


def as_values(ranking: Ranking, speeds: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The page as values for JSON."""
    models = [
        {"name": one.name, "source": one.checkpoint or one.source, "mIoU": one.mIoU, "parameters": one.parameters}
        | ({"timing": dict(speeds[index])} if speeds else {})
        for index, one in enumerate(ranking.contestants)
    ]
    against = [
        {
            "name": outcome.name,
            "p": outcome.p,
            "images_needed": outcome.images_needed,
            "differences": {name: asdict(found) for name, found in outcome.differences.items()},
            "class_p": outcome.class_p,
            "worst": outcome.worst,
        }
        for outcome in ranking.outcomes
    ]
    return {"images": ranking.images, "models": models, "against_first": against}
