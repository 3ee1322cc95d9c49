"""A confusion matrix as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from terrazzo.viz.layout import INK, PAPER, font

FAINT = (222, 226, 232)
DEEP = (24, 78, 160)
NUMBERED = 40  # classes up to which cells show their numbers


def matrix_csv(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Pixels by label (rows) and prediction (columns), as CSV with a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label \\ prediction", *classes])
    writer.writerows([[name, *map(int, row)] for name, row in zip(classes, counts, strict=True)])
    return text.getvalue()


def matrix_picture(counts: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """RGB picture: each row a label, its cells the percentage of its pixels predicted as each class."""
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(counts / counts.sum(1, keepdims=True))
    cell, size = (44, 15) if len(classes) <= NUMBERED else (14, 11)
    letters = font(size)
    margin = int(max(letters.getlength(name) for name in classes)) + 24
    side = cell * len(classes)
    middles = [cell * (index + 0.5) for index in range(len(classes))]
    sheet = Image.new("RGB", (margin + side + 16, margin + side + 16), PAPER)
    rows, columns = (Image.new("RGB", (margin, side), PAPER) for _ in range(2))
    for middle, name in zip(middles, classes, strict=True):
        ImageDraw.Draw(rows).text((margin - 10, middle), name, fill=INK, font=letters, anchor="rm")
        ImageDraw.Draw(columns).text((10, middle), name, fill=INK, font=letters, anchor="lm")
    sheet.paste(rows, (0, margin))
    sheet.paste(columns.rotate(90, expand=True), (margin, 0))
    draw = ImageDraw.Draw(sheet)
    for row, column in np.ndindex(shares.shape):
        share = float(shares[row, column])
        corner = margin + cell * column, margin + cell * row
        box = (*corner, corner[0] + cell - 2, corner[1] + cell - 2)
        colour = tuple(round(light + (deep - light) * share**0.5) for light, deep in zip(FAINT, DEEP, strict=True))
        draw.rectangle(box, fill=colour)
        if len(classes) <= NUMBERED and share >= 0.005:
            place = margin + middles[column] - 1, margin + middles[row] - 1
            draw.text(place, f"{100 * share:.0f}", fill=PAPER if share > 0.15 else INK, font=letters, anchor="mm")
    return np.array(sheet)
