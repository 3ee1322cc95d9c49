"""Speed beside mIoU as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from terrazzo.system.files import write_atomically
from terrazzo.system.printable import caption
from terrazzo.viz.chart import COLOURS, as_pixels, new_figure, plotting, short_number

WIDTH, HEIGHT = 640, 400


def speed_and_score(path: Path, results: Sequence[Mapping[str, Any]]) -> Path:
    """Write a PNG: for each result its images a second (logarithmic) and its mIoU, a colour for each model."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    names = [caption(name) for name in dict.fromkeys(row["model"] for row in results)]
    with plotting(*names):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        for row in results:
            colour = COLOURS[names.index(caption(row["model"])) % len(COLOURS)]
            point = (row["images_per_second"], row["mIoU"])
            axes.plot(*point, "o", color=colour, markersize=8)
            axes.annotate(
                row["runtime"], point, (3, 8), textcoords="offset points", fontsize=9,
                rotation=60, rotation_mode="anchor", va="center",
            )  # fmt: skip
        for name, colour in zip(names, COLOURS * len(names), strict=False):
            axes.plot([], [], "o", color=colour, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.12, 0.3)
        axes.set_xlabel("images a second")
        axes.set_ylabel("mIoU")
        axes.grid(axis="both")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        pixels = as_pixels(figure)
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, "png"))
    return path
