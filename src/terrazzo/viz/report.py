"""A run's results as one HTML file that needs no other file: numbers, curves, a table, pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

import cv2
import numpy as np

from terrazzo.system.files import write_whole
from terrazzo.system.printable import as_html, caption
from terrazzo.viz.page import html_page, legend_list, picture_rows, swatch

Cell = str | float | None


def write_report(
    path: str | Path,
    title: str,
    summary: Sequence[tuple[str, str]] = (),
    curves: Sequence[str] = (),
    table: Sequence[Mapping[str, Cell]] = (),
    pictures: Sequence[Sequence[tuple[str, np.ndarray]]] = (),
    *,
    subtitle: str = "",
    palette: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write a page that holds everything it shows, and return its path.

    `curves` are SVG elements of `line_chart`; the `table` has one mapping per row, its numbers percentages; `pictures`
    are rows of (caption, RGB array); `palette` maps class names to colours, for the table's first column and a legend.
    """
    colours = palette or {}
    parts = []
    if summary:
        parts.append(summary_cards(summary))
    if curves:
        cards = "".join(f'<div class="card">{svg}</div>' for svg in curves)
        parts.append(f'<h2>Training</h2><div class="curves">{cards}</div>')
    if table:
        parts.append(f"<h2>Per class</h2>{table_card(table, colours)}")
    if pictures:
        rows = picture_rows([(caption, data_uri(image)) for caption, image in row] for row in pictures)
        parts.append(f"<h2>Pictures</h2>{legend_list(colours.items())}{rows}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, html_page(title, parts, subtitle))
    return path


def summary_cards(summary: Sequence[tuple[str, str]]) -> str:
    """Cards with a name and a value each."""
    cells = "".join(
        f'<div class="card"><dt>{as_html(name)}</dt><dd>{as_html(str(value))}</dd></div>' for name, value in summary
    )
    return f'<dl class="summary">{cells}</dl>'


def data_uri(image: np.ndarray) -> str:
    """Return an RGB picture as text for an `src`: PNG or JPEG, whichever is smaller (flat colours stay exact)."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    packed = {
        "png": cv2.imencode(".png", bgr)[1],
        "jpeg": cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1],
    }
    kind = min(packed, key=lambda name: packed[name].size)
    return f"data:image/{kind};base64,{base64.b64encode(packed[kind].tobytes()).decode()}"


def table_card(rows: Sequence[Mapping[str, Cell]], palette: Mapping[str, Sequence[int]] | None = None) -> str:
    """A table with one mapping per row, its numbers percentages; classes of a palette have its colours."""
    colours = palette or {}
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name for name in columns if any(isinstance(row.get(name), Real) for row in rows)}
    heads = "".join(
        f'<th scope="col"{" class=number" if name in numeric else ""}>{as_html(name)}</th>' for name in columns
    )
    lines = []
    for row in rows:
        cells = []
        for index, name in enumerate(columns):
            value = row.get(name)
            if name in numeric:
                cells.append(_number(value))
            else:
                words = "" if value is None else str(value)
                patch = swatch(colours[words]) if index == 0 and words in colours else ""
                cells.append(f"<td>{patch}{as_html(caption(words) if words in colours else words)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="card table"><table>{body}</table></div>'


def _number(value: Cell) -> str:
    if isinstance(value, Real) and np.isfinite(float(value)):
        share = min(max(float(value) / 100, 0.0), 1.0)
        return f'<td class="number" style="--share:{share:.3f}">{float(value):.2f}</td>'
    return f'<td class="number">{as_html(value) if isinstance(value, str) else "–"}</td>'
