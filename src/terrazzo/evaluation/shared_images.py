"""The same labelled images for several models, each of which sees them in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.config.datasets import changed_folders
from terrazzo.config.evaluators import EvaluatorSettings
from terrazzo.config.experiment import Experiment, LoaderSettings
from terrazzo.data.build import common_classes, open_dataset
from terrazzo.data.checks.run import check_labels
from terrazzo.data.loaders import make_loader
from terrazzo.errors import UserError, some
from terrazzo.evaluation.evaluate import evaluation_loader, make_evaluator
from terrazzo.evaluation.gallery import smaller
from terrazzo.evaluation.scoring import OnProgress, OnSeen, run_evaluation
from terrazzo.inference.exported import ExportedRuntime
from terrazzo.inference.exported_model import ExportedModel, is_outside, with_resizing
from terrazzo.inference.segmenter import Segmenter
from terrazzo.metrics.confusion import IGNORED, totals
from terrazzo.sample import Sample
from terrazzo.system.painting import as_picture, change_map, overlay

WORST = 8  # images in a report


@dataclass(frozen=True)
class Entrant:
    """A model, or an exported one, its classes, and the steps of its pipeline that resize images."""

    model: Any
    classes: list[str]
    resizing: Sequence[Any] = ()

    @classmethod
    def of(cls, segmenter: Segmenter) -> Entrant:
        """The model of a Segmenter; exported graphs resize themselves, unless they run in windows."""
        runtime = segmenter.runtime
        resizing = [step for step in segmenter.steps if not is_outside(step)]
        if isinstance(runtime, ExportedRuntime):
            return cls(ExportedModel(runtime), list(runtime.classes), resizing if runtime.facts.windows else ())
        return cls(segmenter.model, list(segmenter.classes), resizing)


class SharedImages:
    """The labelled images of an experiment's split ("val" or "test"), and what models make of them.

    Results of models with the same classes in another order are given in the order of `classes`; `where` begins errors.
    """

    def __init__(
        self,
        experiment: Experiment,
        split: str,
        classes: Sequence[str],
        *,
        where: str,
        device: torch.device | None = None,
    ) -> None:
        settings = getattr(experiment, split) or experiment.val or experiment.test
        if settings is None:
            raise UserError(f"{where}: the config has no {'validation' if split == 'val' else split} set")
        self.settings: LoaderSettings = settings
        evaluator: EvaluatorSettings = getattr(experiment, f"{split}_evaluator")
        self.evaluator = replace(evaluator, metrics=({"type": "mIoU"},))
        self.named, self.classes = common_classes(experiment), list(classes)
        self.where, self.device = where, device or torch.device("cpu")
        self.paths: list[str] = []  # of the images, once they have been counted
        self.size = (0, 0)  # height and width of the first one

    def open(self, entrant: Entrant) -> tuple[Any, LoaderSettings]:
        """The images as a model takes them. Raises UserError where their classes are not the model's."""
        tree = changed_folders(self.settings.dataset, lambda data: with_resizing(data, entrant.resizing))
        settings = replace(self.settings, dataset=tree)
        dataset = open_dataset(settings, len(entrant.classes), self.where, classes=self.named)
        if set(dataset.classes) == set(entrant.classes) and list(dataset.classes) != entrant.classes:
            dataset = open_dataset(settings, len(entrant.classes), self.where, classes=entrant.classes)
        if list(dataset.classes) != entrant.classes:
            raise UserError(
                f"{self.where}: the config's classes ({some(dataset.classes)}) are not the model's "
                f"({some(entrant.classes)})"
            )
        return dataset, settings

    def run(
        self, entrant: Entrant, dataset: Any, loader: Any, on_seen: OnSeen, on_progress: OnProgress | None = None
    ) -> None:
        """Show what a model makes of each image, in the model's own order of classes."""
        model = entrant.model.to(self.device)
        evaluator = make_evaluator(model, self.evaluator, dataset, device=self.device)
        run_evaluation([model], loader, evaluator, self.device, on_seen=on_seen, on_progress=on_progress)

    def count(self, entrant: Entrant, on_progress: OnProgress | None = None) -> np.ndarray:
        """For each image right, labelled and predicted pixels of each class (n, 3, K)."""
        dataset, settings = self.open(entrant)
        if not self.paths:
            check_labels(dataset, "val")
        images: list[np.ndarray] = []
        paths: list[str] = []

        def see(sample: Sample, seen: Any) -> None:
            images.append(np.stack(totals(seen.counts)))
            paths.append(str(sample.image_path))
            if len(paths) == 1:
                self.size = (seen.labels.shape[0], seen.labels.shape[1])

        self.run(entrant, dataset, evaluation_loader(dataset, settings, device=self.device), see, on_progress)
        self.paths = paths
        order = [entrant.classes.index(name) for name in self.classes]
        found = np.stack(images)[:, :, order]
        if not found[:, 1].sum():
            raise UserError(f"{self.where}: the images have no labelled pixel")
        return found

    def regressions(self, before: np.ndarray, after: np.ndarray) -> list[tuple[str, float]]:
        """The images that lose the most right pixels, as shares in percent, from the counts (n, 3, K) of two models."""
        lost = 100 * (before[:, 0] - after[:, 0]).sum(1) / before[:, 1].sum(1).clip(min=1)
        return [(self.paths[index], float(lost[index])) for index in np.argsort(-lost)[:WORST] if lost[index] > 0]

    def pictures(
        self,
        pair: tuple[Entrant, Entrant],
        worst: Sequence[tuple[str, float]],
        names: tuple[str, str],
        palette: Sequence[Sequence[int]],
    ) -> list[list[tuple[str, np.ndarray]]]:
        """Rows of pictures of regressions with their captions: the image, its labels, both class maps, what changed."""
        if not worst:
            return []
        indices = [self.paths.index(path) for path, _ in worst]
        first, second = (self.look(entrant, indices) for entrant in pair)
        rows = []
        for (path, lost), (stored, labels, before), (_, _, after) in zip(worst, first, second, strict=True):
            image = as_picture(stored)
            maps = [overlay(image, one, palette, 0.7) for one in (labels, before, after)]
            pictures = [image, *maps, change_map(labels, before, after, image)]
            title = f"{Path(path).name}: {lost:+.2f}% wrong pixels"
            captions = [title, "labels", *names, f"red: wrong only in {names[1]}, green: wrong only in {names[0]}"]
            rows.append([(text, smaller(one, smooth=True)) for text, one in zip(captions, pictures, strict=True)])
        return rows

    def look(self, entrant: Entrant, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The image (H, W, C), the labels and the prediction (H, W) of some of the images."""
        dataset, _ = self.open(entrant)
        seen: list[tuple[Sample, Any]] = []
        self.run(entrant, dataset, make_loader(dataset, [[(0, index)] for index in indices], 0), keeping(seen))
        table = np.full(256, IGNORED, np.uint8)
        table[: len(self.classes)] = [self.classes.index(name) for name in entrant.classes]
        maps = [(found.labels.cpu().numpy(), found.prediction.cpu().numpy()) for _, found in seen]
        return [
            (dataset.read_image(sample), table[labels], table[prediction])
            for (sample, _), (labels, prediction) in zip(seen, maps, strict=True)
        ]


def keeping(seen: list[tuple[Sample, Any]]) -> Callable[[Sample, Any], None]:
    """A callback that keeps what it is shown."""
    return lambda sample, found: seen.append((sample, found))
