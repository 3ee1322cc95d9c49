"""Early ends of a run or a session: time or steps used up, or no more progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from terrazzo.config.experiment import EarlyStopping


@dataclass
class SessionLimit:
    """The most that one session may take: `seconds`, and `steps` since it started."""

    seconds: float | None = None
    steps: int | None = None
    started: float = field(default_factory=time.monotonic)

    def is_reached(self, steps: int) -> bool:
        """Return whether a session that has done `steps` steps has to stop now."""
        late = self.seconds is not None and time.monotonic() - self.started >= self.seconds
        return late or (self.steps is not None and steps >= self.steps)


class Patience:
    """A counter of validations without progress."""

    def __init__(self, rule: EarlyStopping | None, lower_is_better: bool) -> None:
        self.rule, self.sign = rule, -1 if lower_is_better else 1
        self.best: float | None = None
        self.waited = 0

    def note(self, score: float | None) -> None:
        """Count a validation's score."""
        least = self.rule.min_delta if self.rule else 0.0
        if score is not None and (self.best is None or self.sign * (score - self.best) > least):
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    @property
    def is_over(self) -> bool:
        """True when the rule's patience is exhausted."""
        return self.rule is not None and self.waited >= self.rule.patience
