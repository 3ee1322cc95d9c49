"""A data set on disk, read sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.pairs import find_pairs
from terrazzo.data.spec import DatasetSpec
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS, check_arguments
from terrazzo.sample import Sample
from terrazzo.transforms import Compose, read_label
from terrazzo.transforms.decode import map_label


@dataclass(frozen=True)
class Failure:
    """What a loader worker hands over in place of a sample that cannot be read."""

    message: str


class SegmentationDataset:
    """Image and label pairs with their pipeline; an item is drawn by (epoch, index), its randomness from both.

    `metainfo` gives other `classes` (a subset is remapped by name) and `palette`. `ignore` are stored label values that
    do not count; the order is `reduce_zero_label`, `label_map`, `ignore`.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        pipeline: Sequence[Any] = (),
        data_root: str | Path = "",
        data_prefix: dict[str, str] | None = None,
        ann_file: str | Path = "",
        img_suffix: str | Sequence[str] | None = None,
        seg_map_suffix: str | Sequence[str] | None = None,
        metainfo: dict[str, Any] | None = None,
        reduce_zero_label: bool | None = None,
        label_map: dict[Any, int] | None = None,
        ignore: Sequence[int] = (),
        ignore_index: int = 255,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        max_refetch: int = 0,
        lazy_init: bool = False,
        serialize_data: bool = True,
        filter_cfg: dict[str, Any] | None = None,
        backend_args: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        root = Path(data_root)
        prefix = data_prefix or {}
        metainfo = metainfo or {}
        labels = prefix.get("seg_map_path")
        self.name = spec.name
        self.pairs = find_pairs(
            root / prefix.get("img_path", ""),
            root / labels if labels is not None else None,
            img_suffix or spec.img_suffix,
            seg_map_suffix or spec.seg_map_suffix,
            root / ann_file if ann_file else None,
        )
        if indices is not None:
            chosen = range(indices) if isinstance(indices, int) else indices
            self.pairs = [self.pairs[index] for index in chosen]
        self.classes = tuple(metainfo.get("classes") or spec.classes)
        self.palette = [list(colour) for colour in metainfo.get("palette") or spec.palette]
        self.reduce_zero_label = spec.reduce_zero_label if reduce_zero_label is None else reduce_zero_label
        self.label_map = label_map if label_map is not None else subset_map(spec, self.classes)
        if self.label_map is not None and label_map is None and not metainfo.get("palette"):
            self.palette = [self.palette[spec.classes.index(name)] for name in self.classes]
        self.ignore = tuple(ignore)
        self.pipeline = Compose(pipeline)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int | tuple[int, int]) -> Sample | Failure:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        image, label = self.pairs[index]
        meta = {"reduce_zero_label": self.reduce_zero_label, "label_map": self.label_map, "ignore": self.ignore}
        sample = Sample(image_path=image, label_path=label, meta=meta)
        try:
            sample = self.pipeline(sample, np.random.default_rng([self.seed, epoch, index]))
            self.check_classes(sample)
        except (UserError, OSError) as problem:
            return Failure(str(problem))
        return sample

    def check_classes(self, sample: Sample) -> None:
        """Raise UserError if the sample's label has a value outside the classes."""
        if not self.classes or sample.label is None or sample.label_path is None:
            return
        if ((sample.label >= len(self.classes)) & (sample.label != 255)).any():
            self.check_label(sample.label_path)

    def read_label(self, path: Path) -> np.ndarray:
        """The class map (H, W) of a label file, mapped as in the pipeline."""
        return map_label(read_label(path), self.reduce_zero_label, self.label_map, self.ignore)

    def check_label(self, path: Path) -> np.ndarray:
        """Pixels of each class in a label file, ignored ones left out. Raises UserError for a value outside."""
        counts = np.bincount(self.read_label(path).ravel(), minlength=256)
        outside = [value for value in np.flatnonzero(counts) if value >= len(self.classes) and value != 255]
        if outside:
            share = 100 * counts[outside].sum() / counts.sum()
            listed = ", ".join(map(str, outside[:8])) + (", ..." if len(outside) > 8 else "")
            raise UserError(
                f"{path} has label values outside the {len(self.classes)} classes 0-{len(self.classes) - 1}: {listed} "
                f"({share:.2g}% of its pixels). Map them with `label_map: {{{outside[0]}: CLASS}}`, leave them out with "
                f"`ignore: [{outside[0]}]`, or add the missing classes."
            )
        return counts[: len(self.classes)]


def subset_map(spec: DatasetSpec, classes: Sequence[str]) -> dict[int, int] | None:
    """Old to new class index where a config chooses or reorders the declared classes by name; others are ignored."""
    if not spec.classes or tuple(classes) == tuple(spec.classes):
        return None
    unknown = [name for name in classes if name not in spec.classes]
    if unknown:
        return None  # other classes altogether: the labels are taken as they are
    return {old: classes.index(name) if name in classes else 255 for old, name in enumerate(spec.classes)}


class ConcatDataset:
    """Several data sets one after the other."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        if not datasets:
            raise UserError("ConcatDataset: `datasets` is empty")
        self.datasets = list(datasets)
        self.classes = self.datasets[0].classes
        self.palette = self.datasets[0].palette
        self.starts = np.cumsum([0, *(len(dataset) for dataset in self.datasets)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, index: int) -> tuple[Any, int]:
        """The data set of an index and the index inside it."""
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.datasets[which], index - int(self.starts[which])

    def __getitem__(self, position: int | tuple[int, int]) -> Any:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        dataset, inner = self.locate(index)
        return dataset[epoch, inner]


class RepeatDataset:
    """A data set `times` over; every repetition draws its own randomness."""

    def __init__(self, dataset: Any, times: int) -> None:
        self.dataset, self.times = dataset, times
        self.classes, self.palette = dataset.classes, dataset.palette

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, position: int | tuple[int, int]) -> Any:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        repetition, inner = divmod(index, len(self.dataset))
        return self.dataset[epoch * self.times + repetition, inner]


WRAPPER_KEYS = ("lazy_init", "force_apply")


def build_dataset(spec: dict[str, Any], where: str = "dataset", **extra: Any) -> Any:
    """A data set, or several wrapped, from a config section; `extra` goes to every data set. Raises UserError."""
    options = {key: value for key, value in spec.items() if key != "type"}
    kind = str(spec.get("type", "BaseSegDataset"))
    bare = kind.rpartition(".")[2]
    if bare == "ConcatDataset":
        parts = options.pop("datasets", [])
        return ConcatDataset([build_dataset(part, f"{where}.datasets.{i}", **extra) for i, part in enumerate(parts)])
    if bare == "RepeatDataset":
        return RepeatDataset(build_dataset(options["dataset"], f"{where}.dataset", **extra), options["times"])
    declared = DATASETS.get(kind, where)
    options |= extra
    check_arguments(SegmentationDataset, {"spec": declared} | options, kind, where)
    return SegmentationDataset(declared, **options)


def leaves(dataset: Any) -> list[SegmentationDataset]:
    """The data sets on disk inside any wrappers."""
    if isinstance(dataset, ConcatDataset):
        return [leaf for part in dataset.datasets for leaf in leaves(part)]
    if isinstance(dataset, RepeatDataset):
        return leaves(dataset.dataset)
    return [dataset]
