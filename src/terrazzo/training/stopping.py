"""The best score of a run, and what ends it early: no progress, a signal, or the limits of a session."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from terrazzo.config.experiment import RunSettings, Target
from terrazzo.errors import UserError, nearest
from terrazzo.metrics.base import flat_scores
from terrazzo.system.processes import stop_signals


class Best:
    """The best score so far of the metric that a run's settings name, and the progress that early stopping counts."""

    def __init__(self, settings: RunSettings) -> None:
        self.target, self.rule = settings.best, settings.early_stopping
        self.watched = self.rule.target if self.rule is not None else self.target
        self.score: float | None = None
        self.last_progress: float | None = None  # the last score that exceeded the one before by `min_delta`
        self.waited = 0  # validations since then

    def note(self, result: Mapping[str, Any]) -> bool:
        """Count a validation, and return whether its score is the best one. Raises UserError for an unknown score."""
        score, watched = score_of(result, self.target), score_of(result, self.watched)
        if exceeds(self.watched, watched, self.last_progress, self.rule.min_delta if self.rule else 0.0):
            self.last_progress, self.waited = watched, 0
        else:
            self.waited += 1
        is_best = exceeds(self.target, score, self.score)
        self.score = score if is_best else self.score
        return is_best

    @property
    def patience_is_over(self) -> bool:
        """True when early stopping ends the run."""
        return self.rule is not None and self.waited >= self.rule.patience


def score_of(result: Mapping[str, Any], target: Target) -> float | None:
    """A validation's score that decides: the named one, or the first mean. Raises UserError if it is not computed."""
    scores = flat_scores(result)
    if target.name == "auto":
        return scores[next((name for name in scores if name.startswith("m")), next(iter(scores)))]
    if target.name not in scores:
        first = ", ".join(name for name in scores if "." not in name)
        raise UserError(
            f"{target.key}: validation computes no '{target.name}'{nearest(target.name, scores)}; it gives {first}, "
            "and those of a class as IoU.NAME; val_evaluator.iou_metrics adds mDice and mFscore"
        )
    return scores[target.name]


def exceeds(target: Target, score: float | None, other: float | None, margin: float = 0.0) -> bool:
    """Return whether a score is better than another by more than a margin."""
    sign = -1 if target.lower_is_better else 1
    return score is not None and (other is None or sign * (score - other) > margin)


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
