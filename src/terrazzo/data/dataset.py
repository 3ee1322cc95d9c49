"""A data set on disk, read sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.data.cache import open_cache
from terrazzo.data.pairs import Folders, Pair, find_pairs, held_out, is_excluded, suffixes
from terrazzo.data.spec import DatasetSpec, Source
from terrazzo.data.wrappers import WRAPPERS, MultiImageMixDataset, Wrapper
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS, SCOPE_KEY, check_arguments
from terrazzo.sample import Sample
from terrazzo.transforms import Compose, read_label
from terrazzo.transforms.cached import CACHE_KEY
from terrazzo.transforms.decode import map_label
from terrazzo.transforms.formats.base import LabelFormat, make_label_format
from terrazzo.transforms.loading import LoadAnnotations
from terrazzo.transforms.volume_loading import read_volume


@dataclass(frozen=True)
class Failure:
    """What a loader worker hands over in place of a sample that cannot be read."""

    message: str


class SegmentationDataset:
    """Image and label pairs with their pipeline; an item is drawn by (epoch, index), its randomness from both.

    `metainfo` gives other `classes` (a subset is remapped by name) and `palette`. `ignore` are stored label values that
    do not count; the order is `reduce_zero_label`, `label_map`, `ignore`. `exclude` are ends of paths of images that
    are left out. `cache` keeps decoded images and labels, see `terrazzo.data.cache`.
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
        img_suffix2: str | Sequence[str] | None = None,
        depth_map_suffix: str | Sequence[str] | None = None,
        metainfo: dict[str, Any] | None = None,
        reduce_zero_label: bool | None = None,
        label_map: dict[Any, Any] | None = None,
        ignore: Sequence[Any] = (),
        label_format: Any = None,
        holdout: dict[str, Any] | None = None,
        exclude: str | Sequence[str] = (),
        used_labels: Sequence[str] = (),
        ignore_index: int = 255,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        max_refetch: int = 0,
        lazy_init: bool = False,
        serialize_data: bool = True,
        filter_cfg: dict[str, Any] | None = None,
        backend_args: dict[str, Any] | None = None,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        root, exclude = Path(data_root), suffixes(exclude)
        prefix = spec.data_prefix if data_prefix is None else data_prefix
        metainfo = metainfo or {}
        images, labels = root / prefix.get("img_path", ""), prefix.get("seg_map_path")
        self.pipeline = Compose(pipeline)
        label_format = label_format or format_in(self.pipeline)
        if label_format is not None and labels is None and str(ann_file).endswith(".json"):
            labels, ann_file = str(ann_file), ""  # as COCO's configs name their file
        split = root / ann_file if ann_file else None
        self.name, self.describe = spec.name, spec.describe
        self.root, self.exclude = root, exclude
        self.folders: Folders | None = None  # where it has every image and every label of two folders
        declared, endings = tuple(spec.classes), img_suffix or spec.img_suffix
        label_root = root / labels if labels is not None else None
        self.label_format: LabelFormat | None = None
        if label_format is not None and label_root is not None:
            wanted = metainfo.get("classes") or used_labels or declared
            colours = metainfo.get("palette") or spec.palette
            self.label_format = make_label_format(label_format, label_root, wanted, colours, label_map, ignore)
            declared = tuple(self.label_format.names.classes)
            label_map, ignore = without_names(label_map, ignore)
        if spec.read is not None:
            listing = spec.read(Source(images, label_root, split, root, test_mode))
            self.pairs = [pair for pair in listing.pairs if not is_excluded(pair[0], exclude)]
            declared = listing.classes
        else:
            suffix = seg_map_suffix or (self.label_format.suffixes if self.label_format else spec.seg_map_suffix)
            self.pairs = self.labelled(images, label_root, endings, suffix, split)
        self.companions = {  # further files of each image, by the name of their path in a sample's meta
            key: [path for _, path in find_pairs(images, root / prefix[folder], endings, suffix, split, exclude)]
            for key, folder, suffix in (
                ("image_path2", "img_path2", img_suffix2 or spec.img_suffix2),
                ("depth_path", "depth_map_path", depth_map_suffix or spec.depth_map_suffix),
            )
            if folder in prefix
        }
        if holdout is not None:
            check_arguments(held_out, {"names": (), **holdout}, "holdout", "")
            indices = held_out([image.relative_to(images).as_posix() for image, _ in self.pairs], **holdout)
        if indices is not None:
            chosen = range(indices) if isinstance(indices, int) else indices
            self.pairs = [self.pairs[index] for index in chosen]
            self.companions = {key: [paths[index] for index in chosen] for key, paths in self.companions.items()}
        self.classes = tuple(metainfo.get("classes") or used_labels or declared)
        self.palette = [list(colour) for colour in metainfo.get("palette") or spec.palette]
        self.reduce_zero_label = spec.reduce_zero_label if reduce_zero_label is None else reduce_zero_label
        subset = subset_map(declared, self.classes)
        self.label_map = label_map if label_map is not None else subset or spec.label_map
        if subset is not None and label_map is None and self.palette and not metainfo.get("palette"):
            self.palette = [self.palette[declared.index(name)] for name in self.classes]
        self.ignore = tuple(ignore or spec.ignore)
        self.cache = open_cache(cache, [image for image, _ in self.pairs]) if cache else None
        self.seed = seed

    def labelled(
        self, images: Path, labels: Path | None, endings: Any, label_endings: Any, split: Path | None
    ) -> list[Pair]:
        """Images and their labels, which may lie in one file."""
        if self.label_format is not None and self.label_format.is_index:
            found = [image for image, _ in find_pairs(images, None, endings, (), split, self.exclude)]
            return list(zip(found, self.label_format.find_labels(found, images), strict=True))
        if labels is not None and split is None:
            self.folders = Folders(images, labels, suffixes(endings), suffixes(label_endings))
        return find_pairs(images, labels, endings, label_endings, split, self.exclude)

    def __len__(self) -> int:
        return len(self.pairs)

    def start(self, index: int) -> Sample:
        """What is known of a sample before its files are read."""
        image, label = self.pairs[index]
        meta: dict[str, Any] = {
            "reduce_zero_label": self.reduce_zero_label,
            "label_map": self.label_map,
            "ignore": self.ignore,
            "label_format": self.label_format,
            CACHE_KEY: self.cache,
        }
        meta |= {key: paths[index] for key, paths in self.companions.items()}
        if self.describe is not None:
            meta |= self.describe(image)
        return Sample(image_path=image, label_path=label, meta=meta)

    def __getitem__(self, position: int | tuple[int, int]) -> Sample | list[Sample] | Failure:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        try:
            sample = self.pipeline(self.start(index), np.random.default_rng([self.seed, epoch, index]))
            for view in sample if isinstance(sample, list) else [sample]:
                for key in ("label_format", CACHE_KEY):  # the first may hold the labels of all images
                    view.meta.pop(key, None)
                self.check_classes(view)
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
        """The class map of a label file (H, W), or (Z, Y, X) of a volume, mapped as in the pipeline."""
        if self.label_format is not None:
            label = self.label_format.read(path, self.image_of.get(path), (0, 0))
            return map_label(label, self.reduce_zero_label, self.label_map, self.ignore)
        if path.name.endswith((".nii", ".nii.gz")):
            volume = np.rint(read_volume(path, "nifti")[0])
            return map_label(volume.astype(np.uint8), self.reduce_zero_label, self.label_map, self.ignore)
        return map_label(read_label(path), self.reduce_zero_label, self.label_map, self.ignore)

    @cached_property
    def image_of(self) -> dict[Path | None, Path]:
        """The image of each label."""
        return {label: image for image, label in self.pairs}

    def check_label(self, path: Path) -> np.ndarray:
        """Pixels of each class in a label file, ignored ones left out. Raises UserError for a value outside."""
        label, size = self.read_label(path), len(self.classes)
        outside = label[(label >= size) & (label != 255)]
        if outside.size:
            values = np.unique(outside)
            share = 100 * outside.size / label.size
            listed = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
            lossy = "JPEG has changed them: save labels as PNG. " if path.suffix.lower() in (".jpg", ".jpeg") else ""
            raise UserError(
                f"{path} has label values outside the {size} classes 0-{size - 1}: {listed} ({share:.2g}% of its "
                f"pixels). {lossy}Map them with `label_map: {{{values[0]}: CLASS}}`, leave them out with "
                f"`ignore: [{values[0]}]`, or add the missing classes."
            )
        return np.bincount(label[label < size], minlength=size)


def format_in(pipeline: Compose) -> Any:
    """The label format that the pipeline's LoadAnnotations names, if any."""
    loaders = (step for step in pipeline.transforms if isinstance(step, LoadAnnotations))
    return next((loader.label_format for loader in loaders if loader.label_format is not None), None)


def without_names(label_map: dict[Any, Any] | None, ignore: Sequence[Any]) -> tuple[dict[Any, int], list[int]]:
    """What `label_map` and `ignore` say of values, the names that a label format has resolved left out."""
    values = {old: new for old, new in (label_map or {}).items() if str(old).isdecimal()}
    return values, [value for value in ignore if not isinstance(value, str)]


def subset_map(declared: Sequence[str], classes: Sequence[str]) -> dict[int, int] | None:
    """Old to new class index where a config chooses or reorders the declared classes by name; others are ignored."""
    if not declared or tuple(classes) == tuple(declared):
        return None
    if any(name not in declared for name in classes):
        return None  # other classes altogether: the labels are taken as they are
    return {old: classes.index(name) if name in classes else 255 for old, name in enumerate(declared)}


def build_dataset(spec: dict[str, Any], where: str = "dataset", **extra: Any) -> Any:
    """A data set, or several wrapped, from a config section; `extra` goes to every data set. Raises UserError."""
    options = {key: value for key, value in spec.items() if key not in ("type", SCOPE_KEY)}
    kind = str(spec.get("type", "BaseSegDataset"))
    wrapper = WRAPPERS.get(kind.rpartition(".")[2])
    if wrapper is not None:
        options = {key: value for key, value in options.items() if key not in ("lazy_init", "force_apply")}
        for key in {"dataset", "datasets"} & set(options):
            inner = options[key]
            options[key] = (
                [build_dataset(part, f"{where}.{key}.{index}", **extra) for index, part in enumerate(inner)]
                if isinstance(inner, (list, tuple))
                else build_dataset(inner, f"{where}.{key}", **extra)
            )
        if wrapper is MultiImageMixDataset:
            options |= extra
        check_arguments(wrapper, options, kind, where)
        return wrapper(**options)
    declared = DATASETS.get(kind, where)
    options |= extra
    check_arguments(SegmentationDataset, {"spec": declared} | options, kind, where)
    return SegmentationDataset(declared, **options)


def with_pipeline(spec: dict[str, Any], pipeline: Sequence[Any]) -> dict[str, Any]:
    """A data section with another pipeline, in each data set inside its wrappers."""
    inner: dict[str, Any] = {key: spec[key] for key in ("dataset", "datasets") if key in spec}
    if not inner:
        return {**spec, "pipeline": list(pipeline)}
    for key, part in inner.items():
        several = isinstance(part, (list, tuple))
        inner[key] = [with_pipeline(one, pipeline) for one in part] if several else with_pipeline(part, pipeline)
    return {**spec, **inner}


def leaves(dataset: Any) -> list[SegmentationDataset]:
    """The data sets on disk inside any wrappers."""
    if isinstance(dataset, Wrapper):
        return [leaf for part in dataset.parts for leaf in leaves(part)]
    return [dataset]
