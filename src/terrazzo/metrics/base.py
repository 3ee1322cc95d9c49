"""The base of metrics, and the record of an image that they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """One image, predicted: class maps (H, W) at its own size, 255 in `labels` where nothing counts."""

    prediction: Tensor
    labels: Tensor
    counts: Tensor  # K, K: pixels of each (label, prediction)
    logits: Callable[[], Iterator[Tensor]]  # (p, K) of the pixels, row after row, a strip at a time
    image_path: Path | None = None
    label_path: Path | None = None


class Metric:
    """A score that sees images one by one and keeps only counts; registered under the name in configs and --eval.

    `compute` returns the scores of the data set by name; under "per_class" a list over the classes for each score, None
    where a class has none. Fractions are in percent. `sums` names the attributes (arrays, numbers) that several
    processes, each with a part of the images, add up.
    """

    sums: tuple[str, ...] = ()
    palette: Sequence[Sequence[int]] = ()  # the RGB colour of each class, once an evaluator has set it

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def update(self, seen: Seen) -> None:
        raise NotImplementedError

    def compute(self) -> dict[str, Any]:
        raise NotImplementedError


def flat_scores(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return every score of an evaluation by name; those of a class as `IoU.road`."""
    flat = {name: value for name, value in result.items() if name not in ("per_class", "intervals")}
    per_class = result.get("per_class") or {}
    return flat | {f"{score}.{name}": value for name, scores in per_class.items() for score, value in scores.items()}


def percent(value: Any) -> float | None:
    """Return a fraction as a percentage, None where it is undefined."""
    number = float(value)
    return None if number != number else 100 * number


def percents(values: Any) -> list[float | None]:
    """Return fractions as percentages."""
    return [percent(value) for value in values]
