"""Users' data sets and transforms as terrazzo's own."""

import dataclasses
import inspect
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo import registry as ours
from terrazzo.arguments import signature
from terrazzo.compat.data.datasets import BaseSegDataset, with_paths
from terrazzo.compat.data.structures import DataContainer, Results, seeded, to_results, to_sample
from terrazzo.compat.data.transforms import (
    BaseTransform,
    Collect,
    DefaultFormatBundle,
    OfKeys,
    PackSegInputs,
    ToDataContainer,
)
from terrazzo.compat.files.config import ConfigDict
from terrazzo.compat.models.module import overrides
from terrazzo.compat.registry import BUILDS, KEEPERS, wrapping
from terrazzo.config.datasets import FolderData
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.spec import DatasetSpec, Listing, Source
from terrazzo.errors import UserError
from terrazzo.sample import Sample, Target
from terrazzo.transforms.reading import ClassReader

NEVER_CALLED = "evaluate pre_eval format_results results2img"
PACKING = (DefaultFormatBundle, Collect, OfKeys, ToDataContainer, PackSegInputs)
# the kind of what a loading step reads, by what its name and its source have: the first that fits
MARKS = (
    ("label", "^Load(?!Im)[A-Za-z]*(Ann|Label|Mask)"),
    ("image", "^LoadIm|img_|filename"),
    ("label", "gt_|seg_"),
)
# methods that make an item; a class with its own runs in its own way
MAKES_ITEMS = "__getitem__ prepare_train_img prepare_test_img prepare_data pre_pipeline get_data_info get_ann_info"


class UserStep(ClassReader):
    """A user's transform of dicts as a step of terrazzo's pipeline; one that packs for a batch does nothing.

    Official bases say what it reads, else its name and source; these also say what it changes.
    """

    random = moves_pixels = True

    def __init__(self, inner: Any) -> None:
        self.inner, name, source = inner, type(inner).__name__, source_of(type(inner))
        starts, ends = ("Format", "Collect", "Pack", "ToTensor"), ("FormatBundle", "Inputs")
        self.packs = isinstance(inner, PACKING) or name.startswith(starts) or name.endswith(ends)
        is_loader = name.startswith("Load") or "imread" in source or "imfrombytes" in source
        guess = next((kind for kind, mark in MARKS if re.search(mark, f"{name} {source}")), ())
        self.reads = getattr(inner, "reads", ()) or (guess if is_loader else ())
        self.changes_labels = not self.packs and re.search("gt_|seg_|label", source) is not None
        self.needs = "label" if self.changes_labels and not self.reads and "img" not in source else ()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        if self.packs:
            return sample
        older = not isinstance(self.inner, BaseTransform) or self.inner.older
        mapping = self.files.mapping
        told = {key: getattr(mapping, key) for key in ("reduce_zero_label", "label_map") if "label" in self.reads}
        with seeded(rng):
            for _ in range(10):
                results = self.inner(to_results(sample, older=older, **told))
                if results is not None:
                    return self.finished(to_sample(results, sample))
        raise UserError(f"{type(self.inner).__name__} gave None for {sample.image_path} ten times")

    def __repr__(self) -> str:
        return repr(self.inner)


def source_of(cls: type) -> str:
    """The text of a user's class and of its bases; one that a notebook defines has none, and may change anything."""
    own = [part for part in cls.__mro__[:-1] if not part.__module__.startswith("terrazzo.")]
    with suppress(OSError, TypeError):
        return "\n".join(map(inspect.getsource, own))
    return "img_ gt_"


def options_of(cls: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a user's class: those in the config, under the names that its constructor takes."""
    options, takes = {**section, "pipeline": []}, signature(cls)
    if "img_dir" in takes.names and "data_prefix" not in takes.names and options.get("data_prefix"):
        prefix = options.pop("data_prefix")
        options |= {"img_dir": prefix.get("img_path"), "ann_dir": prefix.get("seg_map_path")}
    if "split" in takes.names and options.get("ann_file"):
        options["split"] = options.pop("ann_file")
    return {key: value for key, value in options.items() if takes.takes_any or key in takes.names}


class UserDataset(SegmentationDataset):
    """A user's data set as one of terrazzo's: its images and labels, or the items that it makes itself."""

    def __init__(self, cls: type, data: FolderData, seed: int) -> None:
        section = {key: value for key, value in (data.section or {}).items() if key not in ("type", "_scope_")}
        self.inner: Any = cls(**ConfigDict(options_of(cls, section)))
        if unused := [name for name in NEVER_CALLED.split() if overrides(self.inner, name)]:
            warnings.warn(f"{cls.__name__}: terrazzo does not call {', '.join(unused)}; register a metric instead")
        facts = {key.lower(): getattr(self.inner, key, None) for key in ("CLASSES", "PALETTE")}
        facts |= {key: value for key, value in getattr(self.inner, "metainfo", {}).items() if value}
        palette = () if facts["palette"] is None else [[*map(int, colour)] for colour in facts["palette"]]
        label_map = getattr(self.inner, "label_map", None)  # in which 0.x has -1 for the classes left out
        if label_map is not None:
            label_map = {old: new if new >= 0 else 255 for old, new in label_map.items()}
        classes = tuple(facts["classes"] or ())
        declared = DatasetSpec(
            name=cls.__name__, classes=classes, palette=palette, label_map=label_map,
            reduce_zero_label=bool(getattr(self.inner, "reduce_zero_label", False)),
            data_prefix={"img_path": "", "seg_map_path": ""}, read=partial(self.listing, classes),
        )  # fmt: skip
        known = dataclasses.replace(data, mistake="", metainfo=None, indices=None, data_prefix=None)
        super().__init__(declared, known, seed)
        if not len(self):
            raise UserError(f"{cls.__name__} finds no images: check its data_root, prefixes, suffixes and lists")
        of_theirs = isinstance(self.inner, BaseSegDataset) or hasattr(self.inner, "prepare_train_img")
        self.makes_items = of_theirs and any(overrides(self.inner, name) for name in MAKES_ITEMS.split())
        if self.makes_items:
            self.inner.pipeline = self.as_dict_pipeline

    def listing(self, classes: tuple[str, ...], source: Source) -> Listing:
        paths = [(info.get("img_path") or info["filename"], info.get("seg_map_path")) for info in self.data_list]
        pairs = [(Path(first_of(image)), Path(label) if label else None) for image, label in paths]
        return Listing(pairs, classes)

    data_list = cached_property(lambda self: infos_of(self.inner))

    def as_dict_pipeline(self, results: Any) -> Any:
        """Terrazzo's pipeline, applied to what the user's class has put together."""
        path = results.get("img_path") or Path(results.get("img_prefix") or "", results["img_info"]["filename"])
        label = results.get("seg_map_path")
        if not label and results.get("ann_info"):
            label = Path(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        paths = {"image_path": Path(path), "label_path": Path(label) if label else self.label_path}
        return self.pipeline(Sample(**paths, meta={"results": Results(results)}), self.rng)  # type: ignore[arg-type]

    def start(self, index: int) -> Sample:
        sample = super().start(index)
        sample.meta["results"] = Results(self.data_list[index])
        return sample

    def draw(self, epoch: int, index: int) -> Any:
        if not self.makes_items:
            return super().draw(epoch, index)
        self.rng = np.random.default_rng([self.seed, epoch, index])
        self.label_path = self.pairs[index][1]  # which 0.x leaves out in testing
        with seeded(self.rng):
            item = self.inner[index]
        return item if isinstance(item, Sample) else as_sample(item, super().start(index))


def infos_of(inner: Any) -> list[dict[str, Any]]:
    """The facts of the images of a user's data set, also of one of 0.x on torch's base. Raises UserError for none."""
    if not hasattr(inner, "data_list") and not hasattr(inner, "img_infos"):
        text = "has neither data_list nor img_infos: inherit from BaseSegDataset or CustomDataset"
        raise UserError(f"{type(inner).__name__} {text}")
    folders = [getattr(inner, name, None) for name in ("img_dir", "ann_dir")]
    return inner.data_list if hasattr(inner, "data_list") else [with_paths(info, *folders) for info in inner.img_infos]


def first_of(path: Any) -> Any:
    """A path, or the first of several of one item."""
    return path[0] if isinstance(path, (list, tuple)) else path


def as_sample(item: Any, sample: Sample) -> Sample:
    """Turn an item of a user's data set into a sample: dicts of arrays, tensors, containers or SegDataSamples."""
    if not isinstance(item, Mapping):
        raise UserError(f"an item of the data set is a {type(item).__name__}, not a dict with an image")
    values = {key: value.data if isinstance(value, DataContainer) else value for key, value in item.items()}
    if "data_samples" in values:
        values |= {"gt_seg_map": values["data_samples"].get("gt_sem_seg", {}).get("data"), "img": values.get("inputs")}
    for key, value in values.items():
        if isinstance(value, torch.Tensor):
            values[key] = value.numpy().transpose(1, 2, 0) if key == "img" else value.numpy().squeeze()
    made = to_sample({key: value for key, value in values.items() if value is not None}, sample)
    if made.label is not None and made.label.dtype != np.uint8:
        made.targets["label"] = Target(made.label.astype(np.uint8))
    return made


def register_dataset(name: str, cls: Any) -> None:
    """Declare a user's class, which opens itself; what only its objects know is asked of them."""
    facts, about = dict(getattr(cls, "METAINFO", None) or {}), (inspect.getdoc(cls) or "").partition("\n")[0]
    found = {key: facts.get(key) or getattr(cls, key.upper(), None) for key in ("classes", "palette")}
    known: Any = {key: tuple(value) if isinstance(value, (list, tuple)) else () for key, value in found.items()}
    made = DatasetSpec(name=name, about=about, **known, open=lambda data, seed: UserDataset(cls, data, seed))
    ours.DATASETS.register_raw(made, name, BUILDS["model"])


BUILDS["transform"] = wrapping(UserStep)
KEEPERS["dataset"] = (register_dataset,)
