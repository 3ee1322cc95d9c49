"""Loaders for an experiment, and its class names."""

from __future__ import annotations

from typing import Any

from terrazzo.config.experiment import Experiment, LoaderSettings
from terrazzo.data.dataset import SegmentationDataset, build_dataset, leaves
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS
from terrazzo.system.painting import default_palette


def open_dataset(settings: LoaderSettings, num_classes: int | None, where: str, seed: int = 0) -> Any:
    """The data set of a loader, its classes agreeing with the model's; None is a model of something else.

    Raises UserError where they do not agree.
    """
    dataset = build_dataset(settings.dataset, f"{where}.dataset", seed=seed)
    for leaf in leaves(dataset):
        agree_on_classes(leaf, num_classes, where)
    dataset.classes, dataset.palette = leaves(dataset)[0].classes, leaves(dataset)[0].palette
    return dataset


def agree_on_classes(dataset: SegmentationDataset, num_classes: int | None, where: str) -> None:
    """Give a data set without class names numbers. Raises UserError where it has another number of classes."""
    if not dataset.classes:
        dataset.classes = tuple(str(index) for index in range(num_classes or 0))
    if num_classes is not None and len(dataset.classes) != num_classes:
        raise UserError(
            f"{where.removesuffix('.dataset')}: the data set has {len(dataset.classes)} classes, the model's decode "
            f"head num_classes={num_classes}; set model.decode_head.num_classes={len(dataset.classes)} (auxiliary "
            "heads too)"
        )
    if not dataset.palette:
        dataset.palette = [list(colour) for colour in default_palette(len(dataset.classes))]


def class_names(experiment: Experiment, num_classes: int) -> tuple[list[str], list[list[int]]]:
    """Class names and palette as the config or the declared data set gives them, else numbers and default colours."""
    classes, palette = list(experiment.classes), list(experiment.palette)
    loader = experiment.test or experiment.val or experiment.train
    spec: Any = loader.dataset if loader else {}
    while isinstance(spec, dict) and not classes:
        if str(spec.get("type", "")) in DATASETS:
            declared = DATASETS.get(spec["type"])
            classes, palette = list(declared.classes), [list(colour) for colour in declared.palette]
        inner = spec.get("dataset") or spec.get("datasets")
        spec = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    if len(classes) != num_classes:
        classes, palette = [str(index) for index in range(num_classes)], []
    return classes, palette or [list(colour) for colour in default_palette(num_classes)]
