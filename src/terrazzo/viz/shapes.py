"""What charts are drawn of, as SVG text or as pixels; a colour of None is that of the page's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from terrazzo.viz.layout import INK, PAPER, font

SIZE = 12  # of text, unless it says otherwise
ANCHORS = {"start": "l", "middle": "m", "end": "r"}


@dataclass(frozen=True)
class Text:
    """Words whose baseline begins, has its middle or ends at a point; `upright` ones run upwards."""

    x: float
    y: float
    words: str
    anchor: Literal["start", "middle", "end"] = "start"
    opacity: float = 1.0
    size: int = SIZE
    upright: bool = False

    def svg(self) -> str:
        if self.upright:
            place = f'transform="translate({self.x:.0f} {self.y:.1f}) rotate(-90)"'
        else:
            place = f'x="{self.x:.1f}" y="{self.y:.1f}"'
        style = f' font-size="{self.size}" font-weight="600"' if self.size != SIZE else ""
        style += f' text-anchor="{self.anchor}" fill-opacity="{self.opacity}"'
        return f"<text {place}{style}>{escape(self.words)}</text>"

    def paint(self, sheet: Image.Image, scale: int) -> None:
        size = round(self.size * scale * 0.95)
        letters, ink = font(size), pale(None, self.opacity)
        if not self.upright:
            place, anchor = (self.x * scale, self.y * scale), ANCHORS[self.anchor] + "s"
            ImageDraw.Draw(sheet).text(place, self.words, fill=ink, font=letters, anchor=anchor)
            return
        strip = Image.new("RGB", (int(letters.getlength(self.words)) + 4, 2 * size), PAPER)
        ImageDraw.Draw(strip).text((2, size * 1.4), self.words, fill=ink, font=letters, anchor="ls")
        turned = strip.rotate(90, expand=True)
        left, top = round(self.x * scale - 1.4 * size), round(self.y * scale - turned.height / 2)
        sheet.paste(turned, (max(0, left), max(0, top)))


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[tuple[float, float]]
    colour: str | None = None
    width: float = 1.0
    opacity: float = 1.0

    def svg(self) -> str:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in self.points)
        stroke = f'stroke="{self.colour or "currentColor"}"'
        if self.opacity < 1:
            stroke += f' stroke-opacity="{self.opacity}"'
        if self.width != 1:
            stroke += f' stroke-width="{self.width:g}" stroke-linejoin="round"'
        return f'<path d="M{path}" fill="none" {stroke}/>'

    def paint(self, sheet: Image.Image, scale: int) -> None:
        spots = [(x * scale, y * scale) for x, y in self.points]
        width = max(1, round(self.width * scale))
        ImageDraw.Draw(sheet).line(spots, fill=pale(self.colour, self.opacity), width=width, joint="curve")


@dataclass(frozen=True)
class Dot:
    """A disc that tells its `title` to a pointer."""

    x: float
    y: float
    radius: float
    colour: str
    title: str

    def svg(self) -> str:
        return (
            f'<circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="{self.radius:g}" fill="{self.colour}">'
            f"<title>{escape(self.title)}</title></circle>"
        )

    def paint(self, sheet: Image.Image, scale: int) -> None:
        box = [(part + sign * self.radius) * scale for sign in (-1, 1) for part in (self.x, self.y)]
        ImageDraw.Draw(sheet).ellipse(box, fill=pale(self.colour, 1))


Shape = Text | Line | Dot


def pale(colour: str | None, opacity: float) -> tuple[int, int, int]:
    """A colour (`#rrggbb`; None: that of text) of an opacity on the paper."""
    rgb: Any = INK if colour is None else tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
    red, green, blue = (round(under + (over - under) * opacity) for under, over in zip(PAPER, rgb, strict=True))
    return red, green, blue


def as_svg(shapes: Sequence[Shape], title: str, width: int, height: int) -> str:
    """An SVG element as wide as what it stands in."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'style="width:100%;height:auto" aria-label="{escape(title)}" fill="currentColor" '
        f'font-family="system-ui, sans-serif" font-size="{SIZE}">'
    )
    return "\n".join([head, *(shape.svg() for shape in shapes), "</svg>"])


def as_picture(shapes: Sequence[Shape], width: int, height: int, scale: int = 2) -> np.ndarray:
    """RGB pixels (height * scale, width * scale, 3), drawn twice as large and shrunk for smooth lines."""
    finer = 2 * scale
    sheet = Image.new("RGB", (width * finer, height * finer), PAPER)
    for shape in shapes:
        shape.paint(sheet, finer)
    return np.array(sheet.resize((width * scale, height * scale), Image.Resampling.LANCZOS))
