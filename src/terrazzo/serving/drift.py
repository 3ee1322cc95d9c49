"""The images of a day beside those that a model was trained on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from terrazzo.inference.likeness import USUAL

ENOUGH = 20  # images of a day before anything is said of them
UNUSUAL = 0.25  # share of a day's images beyond what 5% of the training images are beyond
WORDS = {"colours": "in their colours", "size": "in their size", "confidence": "in the model's confidence"}


class Days:
    """The images of today, and what was said of them: one line a day for each model and kind of distance."""

    def __init__(self, today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d")) -> None:
        self.today, self.date = today, ""
        self.seen: dict[tuple[str, str], int] = defaultdict(int)
        self.beyond: dict[tuple[str, str], int] = defaultdict(int)
        self.said: set[tuple[str, str]] = set()

    def note(self, model: str, unlike: Mapping[str, float]) -> Iterator[str]:
        """Count an image, and yield a line where today's images have become unlike the training images."""
        if self.date != self.today():
            self.date = self.today()
            for counts in (self.seen, self.beyond, self.said):
                counts.clear()
        for kind, value in unlike.items():
            key = model, kind
            self.seen[key] += 1
            self.beyond[key] += value > 1
            share = self.beyond[key] / self.seen[key]
            if self.seen[key] >= ENOUGH and share > UNUSUAL and key not in self.said:
                self.said.add(key)
                yield (
                    f"{self.date}: {share:.0%} of today's {self.seen[key]} images for {model} are farther from its "
                    f"training images {WORDS[kind]} than {USUAL:.0%} of those are ({1 - USUAL:.0%} would be usual)"
                )
