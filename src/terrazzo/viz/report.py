"""A run's results as one HTML file that needs nothing else: numbers, curves, a table, pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Real
from pathlib import Path

import cv2
import numpy as np

from terrazzo.system.files import write_whole

Cell = str | float | None

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2430; --faint: #667080; --line: #e2e6ec;
  --bar: #3b82f633; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --page: #10141a; --card: #181e27; --ink: #e6eaf0; --faint: #97a3b4;
  --line: #2a3340; --bar: #3b82f655; --accent: #7db0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); 
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 20px 56px; }
h1 { margin: 0 0 4px; font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 36px 0 12px; font-size: 18px; }
.subtitle, figcaption, footer, th { color: var(--faint); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 22px 0 0; }
.summary div { padding: 12px 16px; }
.summary dt { color: var(--faint); font-size: 13px; }
.summary dd { margin: 0; font-size: 20px; font-weight: 600; overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 14px; }
.curves .card { padding: 14px 14px 8px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 16px; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { border-top: 0; font-size: 13px; font-weight: 600; }
.number { text-align: right; }
td.number { width: 24%; min-width: 120px; background: linear-gradient(var(--bar) 0 0) no-repeat 0 50% content-box;
  background-size: calc((100% - 4.4em) * var(--share, 0)) 55%; }
.swatch { display: inline-block; width: 13px; height: 13px; margin-right: 8px; border-radius: 3px; vertical-align: -1px;
  border: 1px solid #8886; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 12px; padding: 0; list-style: none;
  font-size: 14px; }
.pictures { display: grid; gap: 14px; }
.pictures > div { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 12px;
  padding: 12px; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { margin-top: 6px; font-size: 13px; }
footer { margin-top: 40px; font-size: 13px; }
"""


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

    `curves` are SVG elements of `line_chart`; the `table` has one mapping a row, its numbers percentages; `pictures`
    are rows of (caption, RGB array); `palette` maps class names to colours, for the table's first column and a legend.
    """
    colours = palette or {}
    body = [f"<h1>{escape(title)}</h1>"]
    if subtitle:
        body.append(f'<p class="subtitle">{escape(subtitle)}</p>')
    if summary:
        cells = "".join(
            f'<div class="card"><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>' for name, value in summary
        )
        body.append(f'<dl class="summary">{cells}</dl>')
    if curves:
        cards = "".join(f'<div class="card">{svg}</div>' for svg in curves)
        body.append(f'<h2>Training</h2><div class="curves">{cards}</div>')
    if table:
        body.append(f'<h2>Per class</h2><div class="card table">{_table(table, colours)}</div>')
    if pictures:
        entries = "".join(f"<li>{swatch(colour)}{escape(name)}</li>" for name, colour in colours.items())
        rows = "".join(f'<div class="card">{"".join(_figure(*cell) for cell in row)}</div>' for row in pictures)
        body.append(f'<h2>Pictures</h2><ul class="legend">{entries}</ul><div class="pictures">{rows}</div>')
    body.append("<footer>Written by terrazzo.</footer>")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path


def data_uri(image: np.ndarray) -> str:
    """An RGB picture as text for an `src`: PNG or JPEG, whichever is smaller (flat colours stay exact)."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    packed = {
        "png": cv2.imencode(".png", bgr)[1],
        "jpeg": cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1],
    }
    kind = min(packed, key=lambda name: packed[name].size)
    return f"data:image/{kind};base64,{base64.b64encode(packed[kind].tobytes()).decode()}"


def swatch(colour: Sequence[int]) -> str:
    """A small square in a colour."""
    red, green, blue = (int(value) for value in colour)
    return f'<span class="swatch" style="background:rgb({red} {green} {blue})"></span>'


def _figure(caption: str, image: np.ndarray) -> str:
    height, width = image.shape[:2]
    return (
        f'<figure><img src="{data_uri(image)}" width="{width}" height="{height}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(rows: Sequence[Mapping[str, Cell]], colours: Mapping[str, Sequence[int]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name for name in columns if any(isinstance(row.get(name), Real) for row in rows)}
    heads = "".join(
        f'<th scope="col"{" class=number" if name in numeric else ""}>{escape(name)}</th>' for name in columns
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
                cells.append(f"<td>{patch}{escape(words)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _number(value: Cell) -> str:
    if isinstance(value, Real) and np.isfinite(float(value)):
        share = min(max(float(value) / 100, 0.0), 1.0)
        return f'<td class="number" style="--share:{share:.3f}">{float(value):.2f}</td>'
    return f'<td class="number">{escape(value) if isinstance(value, str) else "–"}</td>'
