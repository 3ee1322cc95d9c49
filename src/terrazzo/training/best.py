"""The best validation so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrazzo.config.experiment import RunSettings


class Best:
    """The best score so far of the metric that a run's settings name."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.score: float | None = None

    def of(self, result: Mapping[str, Any]) -> float | None:
        """The score that decides: the metric of the settings, or else the first mean."""
        wanted = self.settings.best_metric
        first = next((name for name in result if name.startswith("m")), next(iter(result)))
        return result[wanted if wanted in result else first]

    def improves(self, score: float | None) -> bool:
        """Return whether a score beats the best one; if so it becomes the best."""
        if score is None:
            return False
        lower = self.settings.lower_is_better
        better = self.score is None or (score < self.score if lower else score > self.score)
        self.score = score if better else self.score
        return better
