"""Messages of the logger `terrazzo`, to which users' modules log too: seen on stderr, or on the screen of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

LOGGER = logging.getLogger("terrazzo")
SAID: dict[str, None] = {}  # facts of the process, by `say_once`


def is_shown() -> bool:
    """Report whether the program has configured logging, so that messages are seen where it says."""
    return bool(logging.root.handlers)


def on_terminal(text: str) -> None:
    if not is_shown():
        print(text, file=sys.stderr, flush=True)


class Messages(logging.Handler):
    """A handler that gives messages as text to whatever takes them now; a warning is `warning: ...`."""

    take: Callable[[str], None] = staticmethod(on_terminal)

    def emit(self, record: logging.LogRecord) -> None:
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self.take(kind + self.format(record))


MESSAGES = Messages()


def show_messages() -> None:
    """Let messages be seen from now on, from the level INFO where none is set; the root logger stays as it is."""
    LOGGER.addHandler(MESSAGES)
    LOGGER.setLevel(LOGGER.level or logging.INFO)


def write_to(logger: logging.Logger, path: str | Path, mode: str = "w") -> None:
    """Write what a logger gets to a file as well, from now on."""
    known = [one.baseFilename for one in logger.handlers if isinstance(one, logging.FileHandler)]
    if str(Path(path).absolute()) not in known:
        handler = logging.FileHandler(path, mode, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
        logger.addHandler(handler)


def say_once(text: str) -> None:
    """Log a fact of the whole process once; each run's log has it too."""
    if text not in SAID:
        SAID[text] = None
        LOGGER.info(text)
