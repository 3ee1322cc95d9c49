"""Comparison of an exported model with the one it comes from, on labelled images; a worse one is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.config.datasets import changed_folders
from terrazzo.config.evaluators import EvaluatorSettings
from terrazzo.config.experiment import LoaderSettings, make_experiment
from terrazzo.config.load import load_config
from terrazzo.data.build import common_classes, open_dataset
from terrazzo.data.checks.run import check_labels
from terrazzo.data.loaders import make_loader
from terrazzo.errors import UserError, some
from terrazzo.evaluation.evaluate import evaluation_loader, make_evaluator
from terrazzo.evaluation.scoring import OnSeen, run_evaluation
from terrazzo.inference.exported_model import ExportedModel, is_outside, with_resizing
from terrazzo.inference.segmenter import Segmenter
from terrazzo.metrics.bootstrap import draw_sums
from terrazzo.metrics.confusion import class_scores, totals
from terrazzo.sample import Sample

DRAWS = 1000
WORST = 8  # images in the report
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
        """What is worse than allowed, one line each."""
        limits = {name: max_drop if name == "mIoU" else max(class_drop, max_drop) for name in self.drop}
        return [
            f"{name}: {self.original[name]:.2f} -> {self.exported[name]:.2f} (the drop may be {high:.2f}, "
            f"{limits[name]} are allowed)"
            for name, (_, high) in self.drop.items()
            if high > limits[name]
        ]


class Check:
    """The validation set of a config, and the results on it of the original, with the steps of its own pipeline."""

    def __init__(self, config: Any, model: Any, segmenter: Segmenter) -> None:
        experiment = make_experiment(load_config(config))
        settings = experiment.val or experiment.test
        if settings is None:
            raise UserError("--check: the config has no validation set")
        self.settings, self.named = settings, common_classes(experiment)
        self.model, self.classes = model, list(segmenter.classes)
        self.resizing = [step for step in segmenter.steps if not is_outside(step)]
        self.paths: list[str] = []
        self.original = self.count(model)
        if not self.original[:, 1].sum():
            raise UserError("--check: the validation set has no labelled pixel")

    def open(self, model: Any) -> tuple[Any, LoaderSettings]:
        """The validation set as a model takes it. Raises UserError where its classes are not the model's."""
        inside = isinstance(model, ExportedModel) and not model.runtime.facts.windows
        steps = () if inside else self.resizing
        tree = changed_folders(self.settings.dataset, lambda data: with_resizing(data, steps))
        settings = replace(self.settings, dataset=tree)
        dataset = open_dataset(settings, len(self.classes), "val_dataloader", classes=self.named)
        if list(dataset.classes) != self.classes:
            raise UserError(
                f"--check: the config's classes ({some(dataset.classes)}) are not the model's ({some(self.classes)})"
            )
        return dataset, settings

    def run(self, model: Any, dataset: Any, loader: Any, on_seen: OnSeen) -> None:
        """Show what a model makes of each image."""
        evaluator = make_evaluator(model, EvaluatorSettings(({"type": "mIoU"},)), dataset.classes)
        run_evaluation([model], loader, evaluator, torch.device("cpu"), on_seen=on_seen)

    def count(self, model: Any) -> np.ndarray:
        """For each image right, labelled and predicted pixels of each class (n, 3, K)."""
        dataset, settings = self.open(model)
        check_labels(dataset, "val")
        images: list[np.ndarray] = []
        paths: list[str] = []

        def see(sample: Sample, seen: Any) -> None:
            images.append(np.stack(totals(seen.counts)))
            paths.append(str(sample.image_path))

        self.run(model, dataset, evaluation_loader(dataset, settings), see)
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
        order = np.argsort(-lost)[:WORST]
        return Comparison(
            classes=self.classes,
            images=len(exported),
            original=dict(zip(names, before[present].tolist(), strict=True)),
            exported=dict(zip(names, after[present].tolist(), strict=True)),
            drop={name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)},
            worst=[(self.paths[index], float(100 * lost[index])) for index in order],
        )

    def pictures(self, model: ExportedModel, comparison: Comparison) -> list[dict[str, Any]]:
        """The worst images of a comparison: `image`, class maps `original` and `exported`, `title`."""
        order = [[(0, self.paths.index(path))] for path, _ in comparison.worst]
        maps: list[list[np.ndarray]] = []
        images: list[np.ndarray] = []
        for one in (self.model, model):
            dataset, _ = self.open(one)
            seen: list[tuple[Sample, Any]] = []
            self.run(one, dataset, make_loader(dataset, order, 0), lambda *pair, seen=seen: seen.append(pair))
            maps.append([found.prediction.cpu().numpy() for _, found in seen])
            images = [dataset.read_image(sample) for sample, _ in seen]
        return [
            {
                "image": image,
                "original": one,
                "exported": other,
                "title": f"{Path(path).name}: {lost:+.2f}% wrong pixels",
            }
            for image, one, other, (path, lost) in zip(images, *maps, comparison.worst, strict=True)
        ]


def scores(sums: np.ndarray) -> np.ndarray:
    """mIoU and the IoU of each class (n, 1 + K), in percent, from sums (n, 3, K)."""
    iou = 100 * class_scores(sums[:, 0], sums[:, 1], sums[:, 2], 1.0)["IoU"]
    return np.concatenate([np.nanmean(iou, axis=1, keepdims=True), iou], axis=1)
