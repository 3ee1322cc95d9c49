"""A data set on disk, read sample by sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.arguments import check_arguments
from terrazzo.config.datasets import FolderData
from terrazzo.data.cache import open_cache
from terrazzo.data.pairs import (
    Folders,
    Pair,
    fixed_part,
    held_out,
    indexed_pairs,
    is_excluded,
    names_below,
    planes,
    read_groups,
    suffixes,
)
from terrazzo.data.scenes.windows import SceneWindows
from terrazzo.data.spec import DatasetSpec, Source
from terrazzo.data.wrappers import Dataset, Position, as_position
from terrazzo.errors import UserError, some
from terrazzo.sample import Sample
from terrazzo.system.failures import explained, told
from terrazzo.system.palette import default_palette
from terrazzo.transforms import Compose, Transform
from terrazzo.transforms.base import class_of, role_of
from terrazzo.transforms.formats.base import LabelFormat, make_label_format
from terrazzo.transforms.labels import LabelMapping
from terrazzo.transforms.loading import LoadAnnotations, LoadImageFromFile
from terrazzo.transforms.planes import is_nifti, plane_paths
from terrazzo.transforms.reading import StoredFiles, as_stored, bind, unbound
from terrazzo.transforms.volume import LoadBiomedicalAnnotation


@dataclass(frozen=True)
class LoadError:
    """The reason, in place of a sample that cannot be read, that a loader worker hands over."""

    message: str


class SegmentationDataset(Dataset):
    """Image and label pairs with their pipeline; an item is drawn by (epoch, index), its randomness from both."""

    makes_items = False  # puts its samples together by users' own code

    def __init__(self, spec: DatasetSpec, data: FolderData, seed: int = 0) -> None:
        # where everything is
        self.spec, self.data, self.seed = spec, data, seed
        self.root, self.exclude = Path(data.data_root), suffixes(data.exclude)
        prefix = spec.data_prefix if data.data_prefix is None else data.data_prefix
        metainfo = data.metainfo or {}
        images, labels, ann_file = self.root / prefix.get("img_path", ""), prefix.get("seg_map_path"), data.ann_file
        pipeline = Compose(data.pipeline)
        label_format = data.label_format or getattr(pipeline.reader("label"), "label_format", None)
        if label_format is not None and labels is None and str(ann_file).endswith(".json"):
            labels, ann_file = str(ann_file), ""  # as COCO's configs name their file
        split = self.root / ann_file if ann_file else None
        label_root = self.root / labels if labels is not None else None

        # the form of the labels
        declared, endings = tuple(spec.classes), suffixes(data.img_suffix or spec.img_suffix)
        label_map, ignore = data.label_map, data.ignore
        self.label_format: LabelFormat | None = None
        if label_format is not None and label_root is not None:
            wanted = data.class_names or data.used_labels or declared
            colours = metainfo.get("palette") or spec.palette
            self.label_format = make_label_format(label_format, label_root, wanted, colours, label_map, ignore)
            declared = tuple(self.label_format.names.classes)
            label_map, ignore = without_names(label_map, ignore)

        if data.unlabelled == "background" and not (self.label_format and self.label_format.names_classes):
            raise UserError(f"{data.where}.unlabelled: `background` is for labels with outlines, in a label_format")

        # the images, with their labels and further files
        self.folders: Folders | None = None  # where it has every image and every label of two folders
        if spec.read is not None:
            listing = spec.read(Source(images, label_root, split, self.root, data.test_mode))
            self.pairs = [pair for pair in listing.pairs if not is_excluded(pair[0], self.exclude)]
            declared = listing.classes
        else:
            suffix = data.seg_map_suffix or (self.label_format.suffixes if self.label_format else spec.seg_map_suffix)
            suffix = suffixes(suffix)
            folders = Folders(images, label_root, endings, suffix, split, self.exclude, data.unlabelled)
            self.pairs = self.labelled(folders)
        self.companions: dict[str, list[Path | None]] = {}  # further files of each image, by their name in meta
        for key, folder, suffix in (
            ("image_path2", "img_path2", data.img_suffix2 or spec.img_suffix2),
            ("depth_path", "depth_map_path", data.depth_map_suffix or spec.depth_map_suffix),
        ):
            if folder in prefix:
                further = Folders(images, self.root / prefix[folder], endings, suffixes(suffix), split, self.exclude)
                self.companions[key] = [path for _, path in further.pairs()]

        # those of them that are used
        indices = data.indices
        if data.holdout is not None and data.windows is None:
            holdout = dict(data.holdout)
            table = holdout.pop("groups", None)
            check_arguments(held_out, {"names": (), **holdout}, "holdout", "")
            names = names_below(fixed_part(images), [image for image, _ in self.pairs])
            groups = None if table is None else read_groups(self.root / table, names)
            indices = held_out(names, **holdout, groups=groups)
        if indices is not None:
            chosen = range(indices) if isinstance(indices, int) else indices
            self.pairs = [self.pairs[index] for index in chosen]
            self.companions = {key: [paths[index] for index in chosen] for key, paths in self.companions.items()}

        # the classes, and the meaning of label values
        self.classes = data.class_names or tuple(data.used_labels or declared)
        self.palette = [list(colour) for colour in metainfo.get("palette") or spec.palette]
        subset = subset_map(declared, self.classes)
        if subset is not None and label_map is None and self.palette and not metainfo.get("palette"):
            self.palette = [self.palette[declared.index(name)] for name in self.classes]
        mapping = LabelMapping(
            spec.reduce_zero_label if data.reduce_zero_label is None else bool(data.reduce_zero_label),
            label_map if label_map is not None else subset or spec.label_map,
            tuple(ignore or spec.ignore),
        )

        # the planes of stacks and the windows of scenes, each a sample
        if data.windows is None and isinstance(pipeline.reader("image"), LoadImageFromFile) and self.has_stacks():
            self.pairs = [pair for pair in planes(self.pairs) if not is_excluded(pair[0], self.exclude)]
        self.scenes: SceneWindows | None = None
        if data.windows is not None:
            reader = pipeline.reader("image")
            if not isinstance(reader, LoadImageFromFile) or data.cache is not None:
                raise UserError(f"{data.where}.windows: scenes are read by LoadImageFromFile, and without a `cache`")
            self.scenes = SceneWindows(self.pairs, data.windows, reader, mapping, self.label_format, data.holdout)
            self.pairs = self.scenes.pairs()

        # the pipeline, whose reading steps know all of this
        cache = open_cache(data.cache, [image for image, _ in self.pairs]) if data.cache else None
        self.files = StoredFiles(mapping, self.label_format, cache, self.scenes)
        self.pipeline = pipeline.mapped(lambda step: bind(step, self.files))

    def reorder(self, classes: Sequence[str]) -> None:
        """Map the classes to those of the same names in `classes`, which may be more."""
        order = tuple(classes.index(name) for name in self.classes)
        if self.palette:
            colours = dict(zip(order, self.palette, strict=True))
            self.palette = [colours.get(index, list(c)) for index, c in enumerate(default_palette(len(classes)))]
        self.classes = tuple(classes)
        mapping = dataclasses.replace(self.files.mapping, order=order, classes=len(classes))
        self.files = dataclasses.replace(self.files, mapping=mapping)
        self.pipeline = self.pipeline.mapped(lambda step: bind(unbound(step), self.files))

    def labelled(self, folders: Folders) -> list[Pair]:
        """Return images with their labels, which may be stored in one file."""
        if self.label_format is not None and self.label_format.is_index:
            return indexed_pairs(folders, self.label_format)
        if folders.labels is not None and folders.split is None:
            self.folders = folders
        return folders.pairs()

    def has_stacks(self) -> bool:
        """Report whether the files hold several images each, as the first of their kind does."""
        first = self.pairs[0][0] if self.pairs and not self.companions and self.label_format is None else None
        return first is not None and first.is_file() and plane_paths(first) != [first]

    def __len__(self) -> int:
        return len(self.pairs)

    def origins(self) -> list[tuple[SegmentationDataset, int]]:
        return [(self, index) for index in range(len(self))]

    def leaves(self) -> list[SegmentationDataset]:
        return [self]

    def start(self, index: int) -> Sample:
        """Return a sample before its files are read: its paths, and known facts of the image."""
        image, label = self.pairs[index]
        meta: dict[str, Any] = {key: paths[index] for key, paths in self.companions.items()}
        if label is None and self.data.unlabelled == "teacher":
            meta["has_no_label"] = True
        if self.spec.describe is not None:
            meta |= self.spec.describe(image)
        return Sample(image_path=image, label_path=label, meta=meta)

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        epoch, index = as_position(position)
        try:
            with explained(f"to read {self.pairs[index][0]}", "use fewer `workers`, or cut large images into tiles"):
                sample = self.draw(epoch, index)
                for view in sample if isinstance(sample, list) else [sample]:
                    self.check_classes(view)
        except (UserError, OSError) as problem:
            return LoadError(told(problem))
        return sample

    def draw(self, epoch: int, index: int) -> Sample | list[Sample]:
        """Return a sample as the pipeline gives it in an epoch."""
        start = self.start(index)
        if self.scenes is not None and self.scenes.settings.random:  # a window near that of the index
            drawn = self.scenes.draw(index, [self.seed, epoch, index])
            start = dataclasses.replace(start, image_path=drawn[0], label_path=drawn[1])
        return self.pipeline(start, np.random.default_rng([self.seed, epoch, index]))

    @property
    def image_reader(self) -> Transform:
        """The step that reads images."""
        return self.pipeline.reader("image") or LoadImageFromFile()

    def label_reader(self, path: Path) -> Transform:
        """Return the step that reads a label file into classes, also where the pipeline has none."""
        reader = self.pipeline.reader("label")
        is_volume = is_nifti(path) and self.label_format is None
        return reader or bind(LoadBiomedicalAnnotation() if is_volume else LoadAnnotations(), self.files)

    @property
    def mapping(self) -> LabelMapping:
        """The mapping of stored label values to classes, as the pipeline applies it."""
        return getattr(self.pipeline.reader("label"), "mapping", self.files.mapping)

    @property
    def label_changes(self) -> list[str]:
        """The names of users' own parts that may give labels other values than the step that reads them."""
        reader, steps = self.pipeline.reader("label"), self.pipeline.leaves()
        changing = [step for step in steps if step is not reader and role_of(step).changes_labels]
        return [self.spec.name] * self.makes_items + [class_of(step).__name__ for step in changing]

    def read_image(self, sample: Sample) -> np.ndarray:
        """Return the image of one of the samples as it is stored."""
        fresh = dataclasses.replace(sample, image=None, targets={}, meta=dict(sample.meta))
        return as_stored(unbound(self.image_reader))(fresh, np.random.default_rng(0)).pixels

    def check_classes(self, sample: Sample) -> None:
        """Raise UserError if the sample's label has a value outside the classes."""
        if not self.classes or sample.label is None or sample.label_path is None:
            return
        if not outside(sample.label, len(self.classes)).size:
            return
        if self.label_changes:
            self.refuse_values(sample.label, f"{', '.join(self.label_changes)} gives {sample.label_path}")
        self.check_label(sample.label_path, sample.image_path)

    def read_label(self, path: Path, image: Path | None = None) -> np.ndarray:
        """Return the class map of a label file (H, W), or (Z, Y, X) of a volume, mapped as in the pipeline."""
        index = self.index_of.get(path)
        sample = Sample(label_path=path) if index is None else self.start(index)
        sample.image_path = image or sample.image_path
        return self.label_by(self.label_reader(path), sample)

    def label_by(self, step: Any, sample: Sample) -> np.ndarray:
        """Return the label that a step reads for a sample; a user's own step may need the image as well."""
        rng = np.random.default_rng(0)
        label = step(unbound(self.image_reader)(sample, rng) if role_of(step).changes_labels else sample, rng).label
        if label is None:
            raise UserError(f"{step} gives no label for {sample.label_path}")
        return label

    @cached_property
    def images(self) -> set[Path]:
        """The image files."""
        return {image for image, _ in self.pairs}

    @cached_property
    def index_of(self) -> dict[Path | None, int]:
        """The index of each label."""
        return {label: index for index, (_, label) in enumerate(self.pairs)}

    def check_label(self, path: Path, image: Path | None = None) -> np.ndarray:
        """Count the counted pixels of each class in a label file. Raises UserError for a value outside the classes."""
        label, size = self.read_label(path, image), len(self.classes)
        if not self.label_changes:  # which may make them right
            lossy = "JPEG has changed them: save labels as PNG. " if path.suffix.lower() in (".jpg", ".jpeg") else ""
            self.refuse_values(label, f"{path} has", lossy)
        return np.bincount(label[label < size], minlength=size)

    def refuse_values(self, label: np.ndarray, subject: str, cause: str = "") -> None:
        """Raise UserError for a label with values outside the classes; its message begins with `subject`."""
        size = len(self.classes)
        found = outside(label, size)
        if found.size:
            values, share = np.unique(found), 100 * found.size / label.size
            raise UserError(
                f"{subject} label values outside the {size} classes 0-{size - 1}: {some(values, 8)} ({share:.2g}% of "
                f"its pixels). {cause}Map them with `label_map: {{{values[0]}: CLASS}}`, skip them with "
                f"`ignore: [{values[0]}]`, or add the missing classes."
            )


def outside(label: np.ndarray, classes: int) -> np.ndarray:
    """The values of a label that are neither a class nor 255 (ignored)."""
    return label[(label >= classes) & (label != 255)]


def without_names(label_map: dict[Any, Any] | None, ignore: Sequence[Any]) -> tuple[dict[Any, int], list[int]]:
    """Return `label_map` and `ignore` without names, which a label format has resolved."""
    values = {old: new for old, new in (label_map or {}).items() if str(old).isdecimal()}
    return values, [value for value in ignore if not isinstance(value, str)]


def subset_map(declared: Sequence[str], classes: Sequence[str]) -> dict[int, int] | None:
    """Map old to new class indices where a config chooses or reorders the declared classes by name, others to 255."""
    if not declared or tuple(classes) == tuple(declared):
        return None
    if any(name not in declared for name in classes):
        return None  # entirely different classes: the labels are taken as they are
    return {old: classes.index(name) if name in classes else 255 for old, name in enumerate(declared)}
