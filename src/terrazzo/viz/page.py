"""The HTML pages: one skeleton, one style for light and dark, and the elements that several pages show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from terrazzo.system.printable import as_html, caption

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
.pictures > div { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 200px), 1fr)); gap: 12px;
  padding: 12px; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { margin-top: 6px; font-size: 13px; overflow-wrap: anywhere; }
footer { margin-top: 40px; font-size: 13px; }
"""


def html_page(title: str, parts: Sequence[str], subtitle: str = "") -> str:
    """Return a whole page; the title and the subtitle are text, the `parts` below them HTML."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{as_html(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{as_html(title)}</h1>",
        *([f'<p class="subtitle">{as_html(subtitle)}</p>'] if subtitle else []),
        *parts,
        "<footer>Written by terrazzo.</footer>",
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def swatch(colour: Sequence[int]) -> str:
    """A small square in a colour."""
    red, green, blue = (int(value) for value in colour)
    return f'<span class="swatch" style="background:rgb({red} {green} {blue})"></span>'


def colour_list(colours: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Class names beside their colours, for a page without our style."""
    entries = (
        f'<span style="color:rgb{tuple(map(int, colour))}">&#9632;</span> {as_html(caption(name))}'
        for name, colour in colours
    )
    return f"<p>{' &ensp; '.join(entries)}</p>"


def legend_list(colours: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Class names beside their colours."""
    entries = "".join(f"<li>{swatch(colour)}{as_html(caption(name))}</li>" for name, colour in colours)
    return f'<ul class="legend">{entries}</ul>'


def picture_rows(rows: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Cards of pictures side by side, each picture given as (caption, address or data URI)."""
    return f'<div class="pictures">{"".join(_picture_row(row) for row in rows)}</div>'


def _picture_row(cells: Iterable[tuple[str, str]]) -> str:
    figures = "".join(
        f'<figure><img loading="lazy" src="{as_html(source)}" alt="{as_html(words)}">'
        f"<figcaption>{as_html(words)}</figcaption></figure>"
        for words, source in cells
    )
    return f'<div class="card">{figures}</div>'
