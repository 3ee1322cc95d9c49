"""The best score of a run, and what ends it early: no progress, a signal, or the limits of a session."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from terrazzo.config.experiment import RunSettings
from terrazzo.system.processes import stop_signals


class Best:
    """The best score so far of the metric that a run's settings name, and the progress that early stopping counts."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.score: float | None = None
        self.last_progress: float | None = None  # the last score that exceeded the one before by `min_delta`
        self.waited = 0  # validations since then

    def of(self, result: Mapping[str, Any]) -> float | None:
        """The score that decides: the metric of the settings, or else the first mean."""
        wanted = self.settings.best_metric
        first = next((name for name in result if name.startswith("m")), next(iter(result)))
        return result[wanted if wanted in result else first]

    def note(self, score: float | None) -> bool:
        """Count a validation's score, and return whether it is the best one."""
        rule = self.settings.early_stopping
        if self._exceeds(score, self.last_progress, rule.min_delta if rule else 0.0):
            self.last_progress, self.waited = score, 0
        else:
            self.waited += 1
        is_best = self._exceeds(score, self.score)
        self.score = score if is_best else self.score
        return is_best

    def _exceeds(self, score: float | None, other: float | None, margin: float = 0.0) -> bool:
        sign = -1 if self.settings.lower_is_better else 1
        return score is not None and (other is None or sign * (score - other) > margin)

    @property
    def patience_is_over(self) -> bool:
        """True when early stopping ends the run."""
        rule = self.settings.early_stopping
        return rule is not None and self.waited >= rule.patience


class Interrupted(Exception):
    """The session stops before the run's end."""


class SessionEnd:
    """A context in which SIGINT, SIGTERM and SIGHUP set `requested`; a second one ends the process as usual.

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
            for number in stop_signals():
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
