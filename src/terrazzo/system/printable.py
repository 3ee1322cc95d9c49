"""Text of others (names of files and classes, metadata) on its way to a terminal, a log or a page."""

from __future__ import annotations

import html
import re
from typing import Any, TextIO

# what a terminal obeys instead of showing it: controls other than tab and line feed, marks that reorder text, and
# halves of characters, as which Python reads file names that are not UTF-8
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def printable(text: str) -> str:
    r"""The text with characters that would control a terminal or reorder its line as escapes, such as `\u001b`."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def as_html(text: str) -> str:
    """The text as HTML, in elements and in attributes."""
    return html.escape(printable(text))


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
