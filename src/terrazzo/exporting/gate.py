"""Comparison of an exported model with the one it comes from, on labelled images; a worse one is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.evaluation.shared_images import Entrant, SharedImages
from terrazzo.inference.exported_model import ExportedModel
from terrazzo.inference.segmenter import Segmenter
from terrazzo.metrics.paired import paired_differences

DRAWS = 1000
CLASS_DROP = 2.0  # points of a class's IoU


@dataclass(frozen=True)
class Comparison:
    """IoU of both models in percent, and how far the exported one is below, as estimate and worst of the interval."""

    classes: list[str]
    images: int
    original: dict[str, float]  # "mIoU" and each class's IoU
    exported: dict[str, float]
    drop: dict[str, tuple[float, float]]  # points: low and high end of the 95 % interval of original - exported
    worst: list[tuple[str, float]]  # the images with the largest loss of right pixels, in percent of their pixels

    def __str__(self) -> str:
        low, high = self.drop["mIoU"]
        before, after = self.original["mIoU"], self.exported["mIoU"]
        return f"{before:.2f} -> {after:.2f} (95% interval of the drop: {low:.2f} to {high:.2f})"

    def failures(self, max_drop: float, class_drop: float = CLASS_DROP) -> list[str]:
        """The scores that are worse than allowed, one line each."""
        limits = {name: max_drop if name == "mIoU" else max(class_drop, max_drop) for name in self.drop}
        return [
            f"{name}: {self.original[name]:.2f} -> {self.exported[name]:.2f} (the drop may be {high:.2f}, "
            f"{limits[name]} are allowed)"
            for name, (_, high) in self.drop.items()
            if high > limits[name]
        ]


class Check:
    """The validation set of a config, and the results on it of the original, with the steps of its own pipeline."""

    def __init__(self, config: Any, segmenter: Segmenter) -> None:
        experiment = make_experiment(load_config(config))
        self.images = SharedImages(experiment, "val", segmenter.classes, where="--check")
        self.entrant = Entrant.of(segmenter)
        self.original = self.images.count(self.entrant)

    def exported(self, model: ExportedModel) -> Entrant:
        """An exported model, which resizes by itself unless it runs in windows."""
        return replace(self.entrant, model=model, resizing=self.entrant.resizing if model.runtime.facts.windows else ())

    def compare(self, model: ExportedModel) -> Comparison:
        """The exported model beside the original, with intervals of paired resampling over images."""
        exported = self.images.count(self.exported(model))
        found = paired_differences(self.original, exported, self.images.classes, DRAWS)
        return Comparison(
            classes=self.images.classes,
            images=len(exported),
            original={name: one.first for name, one in found.items()},
            exported={name: one.second for name, one in found.items()},
            drop={name: (0.0 - one.high, 0.0 - one.low) for name, one in found.items()},
            worst=self.images.regressions(self.original, exported),
        )

    def pictures(
        self, model: ExportedModel, comparison: Comparison, palette: Sequence[Sequence[int]]
    ) -> list[list[tuple[str, np.ndarray]]]:
        """Rows of pictures of the worst images of a comparison, with their captions."""
        pair = (self.entrant, self.exported(model))
        return self.images.pictures(pair, comparison.worst, ("original", "exported"), palette)
