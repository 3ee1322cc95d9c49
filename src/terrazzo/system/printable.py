"""Text of others (names of files and classes, metadata) on its way to a terminal, a log or a page."""

from __future__ import annotations

import html
from typing import Any, TextIO

from terrazzo.errors import printable

LONGEST_CAPTION = 100  # characters


def as_html(text: str) -> str:
    """The text as HTML, in elements and in attributes."""
    return html.escape(printable(text))


def caption(name: str) -> str:
    """A name for pictures, tables and charts: printable, its middle left out where it is long."""
    half = LONGEST_CAPTION // 2
    return printable(name if len(name) <= LONGEST_CAPTION else f"{name[:half]} ... {name[-half:]}")


class PrintableStream:
    """A text stream that prints what would control the terminal as escapes; rich writes past it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
