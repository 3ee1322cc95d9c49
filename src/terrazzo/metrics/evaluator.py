"""Evaluators: all metrics of an evaluation together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.metrics.base import Metric, Seen
from terrazzo.metrics.bootstrap import Bootstrap
from terrazzo.metrics.confusion import GROUPS, IGNORED, ConfusionMatrix
from terrazzo.registry import METRICS
from terrazzo.system.palette import default_palette


class Evaluator:
    """The confusion matrix and further metrics of class maps, from specs `{"type": name, **options}`.

    With `bootstrap` draws the scores of the confusion matrix get 95 % intervals over images. Pixels labelled
    `ignore_index` do not count, as those of 255; `nan_to_num` is the score (a fraction) of a class that occurs nowhere.
    """

    target = "label"

    def __init__(
        self,
        metrics: Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        *,
        beta: float = 1.0,
        bootstrap: int = 0,
        device: Any = "cpu",
        ignore_index: int | None = None,
        nan_to_num: float | None = None,
        palette: Sequence[Sequence[int]] = (),
    ) -> None:
        self.classes, self.beta, self.ignore_index = list(classes), beta, ignore_index
        self.groups = [spec["type"] for spec in metrics if spec["type"] in GROUPS]
        others = [dict(spec) for spec in metrics if spec["type"] not in GROUPS]
        if any(spec["type"] == "depth" for spec in others):
            raise UserError("depth is a metric of depth estimators, and this model gives classes")
        self.others: list[Metric] = [METRICS.build(spec, "evaluator", classes=self.classes) for spec in others]
        for metric in self.others:
            metric.palette = palette or default_palette(len(self.classes))
        self.absent = nan_to_num
        self.confusion = ConfusionMatrix(len(self.classes), device=device)
        self.parts: list[Any] = [self.confusion, *self.others]  # what holds sums
        self.bootstrap = Bootstrap(self.classes, bootstrap) if bootstrap else None

    def update(
        self,
        prediction: Tensor,
        labels: Tensor,
        logits: Callable[[], Iterator[Tensor]],
        image_path: Path | None = None,
        label_path: Path | None = None,
    ) -> Seen:
        """Count one image, and return what metrics see of it."""
        if self.ignore_index is not None:
            labels = labels.masked_fill(labels == self.ignore_index, IGNORED)
        counts = self.confusion.update(prediction, labels)
        seen = Seen(prediction, labels, counts, logits, image_path, label_path)
        for metric in self.others:
            metric.update(seen)
        if self.bootstrap is not None:
            self.bootstrap.update(seen)
        return seen

    def compute(self) -> dict[str, Any]:
        """Scores by name; `per_class` holds those of each class by its name, `intervals` the bootstrap's."""
        result = self.confusion.compute(self.groups, self.classes, self.beta, self.absent)
        per_class = result.pop("per_class")
        for metric in self.others:
            scores = metric.compute()
            for score, values in scores.pop("per_class", {}).items():
                for name, value in zip(self.classes, values, strict=True):
                    per_class[name][score] = value
            result |= scores
        if self.bootstrap is not None:
            result["intervals"] = self.bootstrap.compute(self.groups, self.beta, self.absent)
        return result | {"per_class": per_class}

    @property
    def single_class(self) -> str | None:
        """The class that every pixel was predicted as, if there is just one."""
        index = self.confusion.single_class
        return None if index is None else self.classes[index]
