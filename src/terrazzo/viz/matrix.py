"""A confusion matrix as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from terrazzo.system.printable import printable
from terrazzo.viz.chart import INK, as_pixels, new_figure, plotting
from terrazzo.viz.fonts import drawable

NUMBERED = 40  # classes up to which cells show their numbers
DARK = 0.3  # share from which a cell's number is written in white


def matrix_csv(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Return pixels by label (rows) and prediction (columns), as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [printable(name) for name in classes]
    writer.writerow(["label \\ prediction", *names])
    writer.writerows([[name, *map(int, row)] for name, row in zip(names, counts, strict=True)])
    return text.getvalue()


def matrix_picture(counts: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return an RGB picture: each row a label, its cells the percentage of its pixels predicted as each class."""
    from matplotlib.colors import PowerNorm

    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(counts / counts.sum(1, keepdims=True))
    names = drawable(classes)
    count = len(names)
    cell = 24 if count <= NUMBERED else 9
    with plotting(*names):
        figure = new_figure(cell * count, cell * count, layout=None)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        lines = 1 if count <= NUMBERED else 0.3
        axes.pcolormesh(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), edgecolors="white", linewidth=lines)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)

        # class names along the top and the left
        middles, size = np.arange(count) + 0.5, 9 if count <= NUMBERED else 7
        axes.set_xticks(middles, names, rotation=90, fontsize=size)
        axes.set_yticks(middles, names, fontsize=size)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        axes.set_xlabel("predicted class", fontsize=12, fontweight="bold")
        axes.set_ylabel("labelled class", fontsize=12, fontweight="bold")
        axes.xaxis.set_label_position("top")

        # percentages of half a percent and more
        for row, column in np.argwhere(shares >= 0.005) if count <= NUMBERED else ():
            share = float(shares[row, column])
            colour = "white" if share > DARK else INK
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        return as_pixels(figure, tight=True)
