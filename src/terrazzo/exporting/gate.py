"""Comparison of an exported model with the one it comes from, on labelled images; a worse one is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from terrazzo.config.evaluators import EvaluatorSettings
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import common_classes, open_dataset
from terrazzo.data.checks.run import check_labels
from terrazzo.errors import UserError, some
from terrazzo.evaluation.evaluate import evaluation_loader, make_evaluator
from terrazzo.evaluation.scoring import run_evaluation
from terrazzo.inference.exported_model import ExportedModel, for_exported
from terrazzo.metrics.bootstrap import draw_sums
from terrazzo.metrics.confusion import class_scores, totals
from terrazzo.sample import Sample

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
    """The validation set of a config, and the original's results on it."""

    def __init__(self, config: Any, model: Any, classes: Sequence[str]) -> None:
        experiment = make_experiment(load_config(config))
        settings = experiment.val or experiment.test
        if settings is None:
            raise UserError("--check: the config has no validation set")
        self.settings, self.named = settings, common_classes(experiment)
        self.classes = list(classes)
        self.paths: list[str] = []
        self.original = self.count(model)

    def count(self, model: Any) -> np.ndarray:
        """For each image right, labelled and predicted pixels of each class (n, 3, K)."""
        settings = self.settings
        if isinstance(model, ExportedModel):
            settings = replace(settings, dataset=for_exported(settings.dataset, model))
        dataset = open_dataset(settings, len(self.classes), "val_dataloader", classes=self.named)
        if list(dataset.classes) != self.classes:
            raise UserError(
                f"--check: the config's classes ({some(dataset.classes)}) are not the model's ({some(self.classes)})"
            )
        check_labels(dataset, "val")
        evaluator = make_evaluator(model, EvaluatorSettings(({"type": "mIoU"},)), dataset.classes)
        images: list[np.ndarray] = []
        paths: list[str] = []

        def see(sample: Sample, seen: Any) -> None:
            images.append(np.stack(totals(seen.counts)))
            paths.append(str(sample.image_path))

        run_evaluation([model], evaluation_loader(dataset, settings), evaluator, torch.device("cpu"), on_seen=see)
        self.paths = paths
        return np.stack(images)

    def compare(self, model: ExportedModel) -> Comparison:
        """The exported model beside the original, with intervals of paired resampling over images."""
        exported = self.count(model)
        names = ["mIoU", *self.classes]
        before, after = (scores(images.sum(0)[None])[0] for images in (self.original, exported))
        present = ~np.isnan(before)
        both = (np.concatenate([*map(scores, draw_sums(images, DRAWS))]) for images in (self.original, exported))
        drawn = next(both) - next(both)  # draws, 1 + K
        low, high = np.nanquantile(drawn[:, present], [0.025, 0.975], axis=0)
        names = [name for name, there in zip(names, present, strict=True) if there]
        lost = (self.original[:, 0] - exported[:, 0]).sum(1) / self.original[:, 1].sum(1).clip(min=1)
        order = np.argsort(-lost)[:8]
        return Comparison(
            classes=self.classes,
            images=len(exported),
            original=dict(zip(names, before[present].tolist(), strict=True)),
            exported=dict(zip(names, after[present].tolist(), strict=True)),
            drop={name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)},
            worst=[(self.paths[index], float(100 * lost[index])) for index in order],
        )


def scores(sums: np.ndarray) -> np.ndarray:
    """mIoU and the IoU of each class (n, 1 + K), in percent, from sums (n, 3, K)."""
    iou = 100 * class_scores(sums[:, 0], sums[:, 1], sums[:, 2], 1.0)["IoU"]
    return np.concatenate([np.nanmean(iou, axis=1, keepdims=True), iou], axis=1)
