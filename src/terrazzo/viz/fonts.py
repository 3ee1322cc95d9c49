"""Text in any script that a font of this machine has: each character in the first font that has a glyph for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

from terrazzo.errors import some
from terrazzo.system.printable import caption

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PREFERRED = (  # beginnings of file names, best first; other fonts follow in the order of their names
    *("notosanscjk", "notosanssc", "notosansjp", "sourcehansans", "wqy-microhei", "wqy-zenhei", "droidsansfallback"),
    *("msyh", "simhei", "pingfang", "hiragino sans gb", "stheiti", "malgun", "meiryo", "arial unicode", "nirmala"),
    *("notosans", "arial", "liberationsans", "freesans"),
)
_told: list[str] = []  # the names of the one warning
STYLED = ("bold", "italic", "oblique", "black", "light", "thin", "mono", "serif", "condensed")


@cache
def bundled() -> Path:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and others."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def installed() -> tuple[Path, ...]:
    """The fonts of this machine, the most suitable first. A new one is found without matplotlib's own list of fonts."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: Path) -> tuple[int, int, str]:
        name = path.name.lower()
        rank = next((rank for rank, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
        return rank, sum(style in name for style in STYLED), name

    return tuple(sorted(map(Path, findSystemFonts()), key=order))


@cache
def characters_of(path: Path) -> frozenset[int]:
    """The characters that a font has glyphs for; none for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@cache
def font_for(character: str) -> Path | None:
    """The font that has a character; None where no font of this machine does."""
    candidates = (bundled(), *installed()) if ord(character) not in characters_of(bundled()) else (bundled(),)
    return next((path for path in candidates if ord(character) in characters_of(path)), None)


def fonts_for(texts: Iterable[str]) -> list[Path]:
    """The fonts that texts need besides the bundled one."""
    needed = {font_for(character) for text in texts for character in text if not character.isascii()}
    return sorted(path for path in needed if path is not None and path != bundled())


def drawable(names: Sequence[str]) -> list[str]:
    """The names as captions, with `class 3` in place of one that no font of this machine has the characters for.

    Such names bring a warning that says what to install.
    """
    names = [caption(name) for name in names]
    missing = [any(not one.isascii() and font_for(one) is None for one in name) for name in names]
    if any(missing):
        warn_once(some(name for name, absent in zip(names, missing, strict=True) if absent))
    return [
        f"class {index}" if absent else name for index, (name, absent) in enumerate(zip(names, missing, strict=True))
    ]


def warn_once(listed: str) -> None:
    """Warn that no font has the characters of some names, the first time."""
    if _told:
        return
    _told.append(listed)
    warnings.warn(
        f"no font of this machine has the characters of {listed}, so pictures show numbers in place of such names: "
        "install one, such as fonts-noto-cjk, or put a .ttf or .otf file into ~/.local/share/fonts",
        stacklevel=3,
    )


@cache
def font(size: int, path: Path | None = None) -> Font:
    """A font, `size` pixels high; without a path the typeface of all pictures."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def runs(text: str, size: int) -> list[tuple[str, Font]]:
    """Parts of a text with the fonts that they are drawn in."""
    if text.isascii():
        return [(text, font(size))]
    parts: list[tuple[str, Font]] = []
    last = bundled()
    for path, characters in groupby(text, lambda character: None if character.isspace() else font_for(character)):
        last = path or last
        parts.append(("".join(characters), font(size, last)))
    return parts


def text_width(text: str, size: int) -> float:
    """The width of a text in pixels."""
    return sum(letters.getlength(part) for part, letters in runs(text, size))


def draw_text(
    draw: ImageDraw.ImageDraw, left: float, middle: float, text: str, size: int, fill: tuple[int, int, int]
) -> None:
    """Draw a text that begins at `left`, around the height `middle`."""
    for part, letters in runs(text, size):
        draw.text((left, middle), part, fill=fill, font=letters, anchor="lm")
        left += letters.getlength(part)
