"""The console that everything but plain `print` goes through."""

from __future__ import annotations

from typing import IO, Any

import rich.console
from rich.text import Text

from terrazzo.system.printable import printable


class Console(rich.console.Console):
    """A console that shows text as it is: no markup, no codes of emoji, control characters as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    @property
    def file(self) -> IO[str]:
        """The stream itself, below those that stand in for it."""
        stream = super().file
        while hasattr(stream, "rich_proxied_file"):
            stream = stream.rich_proxied_file
        return stream

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream
