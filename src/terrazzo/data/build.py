"""From an experiment's data to opened data sets, and its class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrazzo.arguments import placed
from terrazzo.config.datasets import (
    ClassBalancedData,
    ConcatenatedData,
    DataTree,
    FolderData,
    RepeatedData,
    data_tree,
    folders,
)
from terrazzo.config.experiment import Experiment, LoaderSettings
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.remote import with_local_root
from terrazzo.data.spec import DatasetSpec
from terrazzo.data.wrappers import ClassBalancedDataset, ConcatDataset, Dataset, MultiImageMixDataset, RepeatDataset
from terrazzo.errors import UserError, nearest
from terrazzo.registry import DATASETS
from terrazzo.system.palette import suggested_palette


def open_dataset(
    settings: LoaderSettings, num_classes: int | None, where: str, seed: int = 0, classes: Sequence[str] = ()
) -> Dataset:
    """Open the data set of a loader, its classes agreeing with the model's; None is a model of something else.

    Data sets that have the named `classes`, by default those of the first one, in another order are mapped by name.
    Raises UserError where they do not agree.
    """
    dataset = open_tree(settings.dataset, seed)
    leaves = dataset.leaves()
    for leaf in leaves:
        agree_on_classes(leaf, num_classes, where, classes or leaves[0].classes)
    dataset.classes, dataset.palette = leaves[0].classes, leaves[0].palette
    return dataset


def open_tree(tree: DataTree, seed: int = 0) -> Dataset:
    """Open a data set, or several wrapped. Raises UserError for missing files and unknown keys."""
    if isinstance(tree, FolderData):
        return open_folder(tree, seed)
    parts = [open_tree(part, seed) for part in tree.parts]
    if isinstance(tree, ConcatenatedData):
        return ConcatDataset(parts)
    if isinstance(tree, RepeatedData):
        return RepeatDataset(parts[0], tree.times)
    if isinstance(tree, ClassBalancedData):
        return ClassBalancedDataset(parts[0], tree.oversample_thr)
    return MultiImageMixDataset(parts[0], tree.pipeline, tree.skip_type_keys or (), seed)


def open_folder(data: FolderData, seed: int = 0) -> SegmentationDataset:
    """Open a data set on disk. Raises UserError for a key that it does not have."""
    declared = DATASETS.get(data.type, data.where)
    if isinstance(declared, DatasetSpec) and declared.open is not None:
        with placed(data.type, data.where, data.section):
            return declared.open(data, seed)
    if data.mistake:
        raise UserError(data.mistake)
    if not isinstance(declared, DatasetSpec):
        raise UserError(
            f"{data.type} at {data.where} is a {type(declared).__name__}, but a data set is declared, not written as a "
            f"class: terrazzo.data.spec.declare(name='{data.type}', classes=..., palette=..., img_suffix=...) in its "
            "place; or type='BaseSegDataset' with metainfo=dict(classes=..., palette=...) in the config"
        )
    return SegmentationDataset(declared, with_local_root(data, declared), seed)


def build_dataset(section: Mapping[str, Any], where: str = "dataset", seed: int = 0) -> Dataset:
    """Open the data set that a config section describes."""
    return open_tree(data_tree(section, where), seed)


def agree_on_classes(
    dataset: SegmentationDataset, num_classes: int | None, where: str, classes: Sequence[str] = ()
) -> None:
    """Give a data set the order of the named `classes`, or numbers for names where it has none.

    Raises UserError where it has another number of classes, or one that is not among `classes`.
    """
    where = where.removesuffix(".dataset")
    if not dataset.classes:
        dataset.classes = tuple(str(index) for index in range(num_classes or 0))
    if num_classes is not None and len(dataset.classes) == 1:
        name = dataset.classes[0]
        raise UserError(
            f"{where}: the data set has one class, '{name}', and nothing to tell it from. Name the rest too, "
            f"`classes: [background, {name}]`, with 0 in the labels for the first and 1 (or 255 and `label_map: "
            f"{{255: 1}}`) for '{name}'. The heads then have num_classes=2; or, for one output with a sigmoid, "
            "num_classes=2, out_channels=1 and use_sigmoid=True in their losses"
        )
    if are_names(classes) and are_names(dataset.classes) and dataset.classes != tuple(classes):
        others = [name for name in dataset.classes if name not in classes]
        if others:
            raise UserError(
                f"{where}: the data set in {dataset.root} has the classes {', '.join(dataset.classes)}, the others "
                f"have {', '.join(classes)}: labels are matched by these names, and '{others[0]}' is not among them"
                f"{nearest(others[0], classes)}"
            )
        dataset.reorder(classes)
    if num_classes is not None and len(dataset.classes) != num_classes:
        raise UserError(
            f"{where}: the data set has {len(dataset.classes)} classes, the model's decode head "
            f"num_classes={num_classes}; set model.decode_head.num_classes={len(dataset.classes)} (auxiliary heads too)"
        )
    if not dataset.palette:
        dataset.palette = suggested_palette(dataset.classes)


def are_names(classes: Sequence[str]) -> bool:
    """Report whether classes have names rather than numbers."""
    return bool(classes) and not all(name.isdecimal() for name in classes)


def common_classes(experiment: Experiment) -> tuple[str, ...]:
    """The classes of all data sets of an experiment, in the order of the model's outputs; empty where it names none."""
    loader = experiment.train or experiment.val or experiment.test
    if experiment.classes or loader is None:
        return experiment.classes
    first = next(folders(loader.dataset))
    return tuple(first.used_labels or declaration(first.type).classes)


def declaration(kind: str) -> DatasetSpec:
    """The declaration of a data set's type, an empty one where there is none: its opener says what is wrong."""
    found = DATASETS.get(kind) if kind in DATASETS else None
    return found if isinstance(found, DatasetSpec) else DatasetSpec(kind)


def class_count(model: Mapping[str, Any]) -> int | None:
    """Return the number of classes of a model's last decode head, where the config sets it."""
    head = model.get("decode_head")
    head = head[-1] if isinstance(head, (list, tuple)) and head else head
    return head.get("num_classes") if isinstance(head, Mapping) else None


def class_names(experiment: Experiment, num_classes: int) -> tuple[list[str], list[list[int]]]:
    """Class names and palette as the config or the declared data set gives them, else numbers and default colours."""
    classes, palette = list(experiment.classes), list(experiment.palette)
    loader = experiment.test or experiment.val or experiment.train
    if loader is not None and not classes:
        declared = declaration(next(folders(loader.dataset)).type)
        classes, palette = list(declared.classes), [list(colour) for colour in declared.palette]
    if len(classes) != num_classes:
        classes, palette = [str(index) for index in range(num_classes)], []
    return classes, palette or suggested_palette(classes)
