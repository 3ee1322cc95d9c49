"""The end of a session before that of the run: by a limit, or on request."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any


class Interrupted(Exception):
    """The session stops before the run's end."""


class SessionEnd:
    """A context in which SIGINT and SIGTERM set `requested`; a second one ends the process as usual.

    A session also ends after `seconds` or `steps`.
    """

    def __init__(self, seconds: float | None = None, steps: int | None = None) -> None:
        self.seconds, self.steps = seconds, steps
        self.started = time.monotonic()
        self.requested = False
        self._previous: dict[int, Any] = {}

    def is_due(self, steps: int) -> bool:
        """Return whether a session that has done `steps` steps has to stop now."""
        late = self.seconds is not None and time.monotonic() - self.started >= self.seconds
        return self.requested or late or (self.steps is not None and steps >= self.steps)

    def __enter__(self) -> SessionEnd:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, *_: object) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
