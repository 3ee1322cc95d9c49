"""Data sets written as classes: `CustomDataset` and `BaseSegDataset`, and how terrazzo opens them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from terrazzo import registry as ours
from terrazzo.compat.config import ConfigDict
from terrazzo.compat.files import list_dir_or_file
from terrazzo.compat.registry import ORIGINALS
from terrazzo.compat.structures import BaseDataElement, DataContainer
from terrazzo.compat.transforms import Compose, LoadAnnotations, Results, seeded, to_sample
from terrazzo.config.datasets import FolderData
from terrazzo.data.dataset import LoadError, SegmentationDataset
from terrazzo.data.spec import DatasetSpec, Listing, Source
from terrazzo.data.wrappers import as_position
from terrazzo.errors import UserError
from terrazzo.sample import Sample, Target
from terrazzo.system.palette import default_palette

# methods that make an item; a class with its own runs in its own way
MAKES_ITEMS = "__getitem__ prepare_train_img prepare_test_img prepare_data pre_pipeline get_data_info get_ann_info"
FACES = ("filename", "ann")


class SegDataset(torch.utils.data.Dataset):
    """Images and class maps in folders, with the arguments and methods of both vocabularies."""

    METAINFO: ClassVar[dict[str, Any]] = {}
    CLASSES: Any = None
    PALETTE: Any = None

    def __init__(
        self, ann_file: Any = "", img_suffix: Any = ".jpg", seg_map_suffix: Any = ".png", metainfo: Any = None,
        data_root: Any = None, data_prefix: Any = None, filter_cfg: Any = None, indices: Any = None,
        serialize_data: bool = True, pipeline: Any = (), test_mode: bool = False, lazy_init: bool = False,
        max_refetch: int = 1000, ignore_index: int = 255, reduce_zero_label: bool = False, backend_args: Any = None,
        img_dir: Any = None, ann_dir: Any = None, split: Any = None, classes: Any = None, palette: Any = None,
        gt_seg_map_loader_cfg: Any = None, file_client_args: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        prefix = {"img_path": "", "seg_map_path": "", **(data_prefix or {})}
        if img_dir is not None:
            prefix = {"img_path": img_dir, "seg_map_path": ann_dir or ""}
        self.data_root, self.test_mode, self.ann_file = data_root, test_mode, split or ann_file or ""
        self.img_suffix, self.seg_map_suffix = img_suffix, seg_map_suffix
        self.ignore_index, self.reduce_zero_label = ignore_index, reduce_zero_label
        self.backend_args, self.file_client_args, self.file_client = backend_args, file_client_args, None
        self.filter_cfg, self._indices, self.max_refetch = copy.deepcopy(filter_cfg), indices, max_refetch
        self.serialize_data = False
        self.data_prefix = {key: self.joined(value) for key, value in prefix.items()}
        if self.ann_file:
            self.ann_file = self.joined(self.ann_file)
        self.split = self.ann_file or None
        self.img_dir, self.ann_dir = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        self._metainfo = self._load_metainfo({**(metainfo or {}), **({"classes": classes} if classes else {})})
        if palette is not None:
            self._metainfo["palette"] = palette
        self.custom_classes, self.label_map = classes is not None, self.get_label_map(self._metainfo.get("classes"))
        self._metainfo.update(label_map=self.label_map, reduce_zero_label=reduce_zero_label)
        self._metainfo["palette"] = self._update_palette()
        self.CLASSES, self.PALETTE = self._metainfo.get("classes"), self._metainfo["palette"]
        self.gt_seg_map_loader = LoadAnnotations(**(gt_seg_map_loader_cfg or {}))
        self.pipeline = Compose(pipeline)
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def joined(self, path: Any) -> str:
        """A path below `data_root`, unless it is absolute."""
        return str(Path(self.data_root or "") / str(path)) if path else str(path)

    # facts

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict[str, Any]:
        declared = {"classes": cls.CLASSES, "palette": cls.PALETTE} if cls.CLASSES is not None else {}
        found = {**declared, **copy.deepcopy(cls.METAINFO), **(metainfo or {})}
        return {key: Path(value).read_text().splitlines() if key == "classes" and isinstance(value, str) else value
                for key, value in found.items()}  # fmt: skip

    @property
    def metainfo(self) -> dict[str, Any]:
        return copy.deepcopy(self._metainfo)

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> dict[int, int] | None:
        """From the declared classes to chosen ones, 255 for those that are left out."""
        old = cls.METAINFO.get("classes") or cls.CLASSES
        if new_classes is None or old is None or [*new_classes] == [*old]:
            return None
        if not set(new_classes) <= set(old):
            raise ValueError(f"new classes {new_classes} is not a subset of classes {old} in METAINFO.")
        return {index: [*new_classes].index(name) if name in new_classes else 255 for index, name in enumerate(old)}

    def _update_palette(self) -> list[Any]:
        classes, palette = self._metainfo.get("classes") or (), self._metainfo.get("palette") or []
        if not palette:
            return default_palette(len(classes))
        if len(palette) == len(classes):
            return palette
        if self.label_map is None:
            raise ValueError(f"palette has {len(palette)} colours for {len(classes)} classes")
        return [
            palette[old]
            for old, _ in sorted(((o, n) for o, n in self.label_map.items() if n != 255), key=lambda x: x[1])
        ]

    # the images

    def full_init(self) -> None:
        if self._fully_initialized:
            return
        if getattr(type(self).load_annotations, "__module__", "") != __name__:  # a user's, of 0.x
            self.img_infos = self.load_annotations(
                self.img_dir, self.img_suffix, self.ann_dir, self.seg_map_suffix, self.split
            )
            self.data_list = [self.from_0x(info) for info in self.img_infos]
        else:
            self.data_list = self.filter_data(self.load_data_list())
            self.img_infos = [self.to_0x(info) for info in self.data_list]
        if self._indices is not None:
            self.data_list = self._get_unserialized_subset(self._indices)
        self._fully_initialized = True

    def _get_unserialized_subset(self, indices: Any) -> list[Any]:
        return self.data_list[:indices] if isinstance(indices, int) else [self.data_list[i] for i in indices]

    def filter_data(self, data_list: Any = None) -> list[Any]:
        return self.data_list if data_list is None else data_list

    def _join_prefix(self) -> None:
        """Nothing: the constructor has done it."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """Each image with its class map: those of a list, else all in the folder."""
        folder, labels = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        if self.ann_file and Path(self.ann_file).is_file():
            names = [
                line.strip() + self.img_suffix for line in Path(self.ann_file).read_text().splitlines() if line.strip()
            ]
        else:
            names = [*list_dir_or_file(folder, list_dir=False, suffix=self.img_suffix, recursive=True)]
        found = []
        for name in names:
            info: dict[str, Any] = {"img_path": str(Path(folder, name))}
            if labels:
                info["seg_map_path"] = str(Path(labels, name[: len(name) - len(self.img_suffix)] + self.seg_map_suffix))
            info |= {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}
            found.append(info)
        return sorted(found, key=lambda info: info["img_path"])

    def load_annotations(
        self, img_dir: Any, img_suffix: Any, ann_dir: Any, seg_map_suffix: Any, split: Any
    ) -> list[Any]:
        """0.x: as `load_data_list`, with names relative to the folders."""
        return [self.to_0x(info) for info in self.load_data_list()]

    def to_0x(self, info: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"filename": relative(info.get("img_path", ""), self.img_dir)}
        if info.get("seg_map_path"):
            made["ann"] = {"seg_map": relative(info["seg_map_path"], self.ann_dir)}
        return made

    def from_0x(self, info: Mapping[str, Any]) -> dict[str, Any]:
        made = {key: value for key, value in info.items() if key not in FACES}
        made["img_path"] = str(Path(self.img_dir or "", info["filename"]))
        if info.get("ann"):
            made["seg_map_path"] = str(Path(self.ann_dir or "", info["ann"]["seg_map"]))
        return made | {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}

    # items

    def __len__(self) -> int:
        return len(self.data_list)

    def __getitem__(self, idx: int) -> Any:
        if getattr(type(self).prepare_train_img, "__module__", "") != __name__:
            return self.prepare_test_img(idx) if self.test_mode else self.prepare_train_img(idx)
        return self.prepare_data(idx)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        return copy.deepcopy(self.data_list[idx]) | {"sample_idx": idx}

    def prepare_data(self, idx: int) -> Any:
        return self.pipeline(Results(self.get_data_info(idx)))

    def get_ann_info(self, idx: int) -> Any:
        return self.img_infos[idx].get("ann")

    def pre_pipeline(self, results: Any) -> None:
        results.update({"seg_fields": [], "img_prefix": self.img_dir, "seg_prefix": self.ann_dir})
        results["label_map"], results["reduce_zero_label"] = self.label_map, self.reduce_zero_label

    def prepare_train_img(self, idx: int) -> Any:
        results = Results(img_info=self.img_infos[idx], ann_info=self.get_ann_info(idx))
        self.pre_pipeline(results)
        return self.pipeline(results)

    def prepare_test_img(self, idx: int) -> Any:
        return self.prepare_train_img(idx)

    def get_gt_seg_map_by_idx(self, index: int) -> Any:
        results = Results(self.data_list[index])
        self.gt_seg_map_loader(results)
        return results["gt_seg_map"]

    def get_gt_seg_maps(self, efficient_test: Any = None) -> Any:
        return (self.get_gt_seg_map_by_idx(index) for index in range(len(self)))


CustomDataset = BaseSegDataset = BaseDataset = SegDataset


def relative(path: Any, folder: Any) -> str:
    return str(Path(path).relative_to(folder)) if folder and Path(path).is_relative_to(folder) else str(path)


# Terrazzo's view of such a class


def own_method(cls: type, name: str) -> bool:
    """Report whether a user's class defines a method itself."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    return owner is not None and not owner.__module__.startswith(("terrazzo.", "torch."))


def options_of(cls: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a user's class: those in the config, under the names that its constructor takes."""
    options = dict(section)
    takes = inspect.signature(cls).parameters
    every = any(item.kind is item.VAR_KEYWORD for item in takes.values())
    prefix = dict(options.get("data_prefix") or {})
    if "img_dir" in takes and "data_prefix" not in takes and prefix:
        options.pop("data_prefix", None)
        options |= {"img_dir": prefix.get("img_path"), "ann_dir": prefix.get("seg_map_path")}
    if "split" in takes and options.get("ann_file"):
        options["split"] = options.pop("ann_file")
    options["pipeline"] = []
    return {key: value for key, value in options.items() if every or key in takes}


class UserDataset(SegmentationDataset):
    """A user's data set as one of terrazzo's: its images and labels, or the items that it makes itself."""

    def __init__(self, cls: type, data: FolderData, seed: int) -> None:
        section = {key: value for key, value in (data.section or {}).items() if key not in ("type", "_scope_")}
        self.inner: Any = cls(**ConfigDict(options_of(cls, section)))
        facts = getattr(self.inner, "metainfo", {})
        classes = tuple(facts.get("classes") or getattr(self.inner, "CLASSES", None) or ())
        declared = DatasetSpec(
            name=cls.__name__,
            classes=classes,
            palette=facts.get("palette") or getattr(self.inner, "PALETTE", None) or (),
            reduce_zero_label=bool(getattr(self.inner, "reduce_zero_label", False)),
            label_map=getattr(self.inner, "label_map", None),
            data_prefix={"img_path": "", "seg_map_path": ""},
            read=self.listing,
        )
        known = dataclasses.replace(data, mistake="", metainfo=None, indices=None, data_prefix=None)
        super().__init__(declared, known, seed)
        self.makes_items = isinstance(self.inner, SegDataset) and any(
            own_method(cls, name) for name in MAKES_ITEMS.split()
        )
        if self.makes_items:
            self.inner.pipeline = self.as_dict_pipeline

    def listing(self, source: Source) -> Listing:
        """The images and labels of the user's data set."""
        infos = getattr(self.inner, "data_list", None)
        if infos is None:
            raise UserError(
                f"{type(self.inner).__name__} has no data_list: inherit from BaseSegDataset or CustomDataset"
            )
        pairs: list[tuple[Path, Path | None]] = []
        for info in infos:
            label = info.get("seg_map_path")
            pairs.append((Path(info.get("img_path") or info.get("filename")), Path(label) if label else None))
        return Listing(pairs, tuple(self.inner.metainfo.get("classes") or ()))

    @cached_property
    def data_list(self) -> list[Any]:
        return self.inner.data_list

    def as_dict_pipeline(self, results: Any) -> Any:
        """Terrazzo's pipeline, applied to what the user's class has put together."""
        path = results.get("img_path") or Path(results.get("img_prefix") or "", results["img_info"]["filename"])
        label = results.get("seg_map_path")
        if not label and results.get("ann_info"):
            label = Path(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        sample = Sample(
            image_path=Path(path), label_path=Path(label) if label else None, meta={"results": Results(results)}
        )
        return self.pipeline(sample, self.rng)

    def start(self, index: int) -> Sample:
        sample = super().start(index)
        sample.meta["results"] = Results(self.data_list[index])
        return sample

    def __getitem__(self, position: Any) -> Any:
        if not self.makes_items:
            return super().__getitem__(position)
        epoch, index = as_position(position)
        self.rng = np.random.default_rng([self.seed, epoch, index])
        try:
            with seeded(self.rng):
                item = self.inner[index]
            return item if isinstance(item, Sample) else as_sample(item, super().start(index))
        except (UserError, OSError) as problem:
            return LoadError(str(problem))


def as_sample(item: Any, sample: Sample) -> Sample:
    """Turn an item of a user's data set into a sample: dicts of arrays, tensors, containers or SegDataSamples."""
    if not isinstance(item, Mapping):
        raise UserError(f"an item of the data set is a {type(item).__name__}, not a dict with an image")
    values = {key: value.data if isinstance(value, DataContainer) else value for key, value in item.items()}
    if "data_samples" in values:
        found = values["data_samples"]
        values["gt_seg_map"] = found.gt_sem_seg.data if isinstance(found, BaseDataElement) else None
        values["img"] = values.get("inputs")
    for key, value in values.items():
        if isinstance(value, torch.Tensor):
            array = value.numpy()
            values[key] = array.transpose(1, 2, 0) if key == "img" else array.squeeze()
    made = to_sample({key: value for key, value in values.items() if value is not None}, sample)
    if made.label is not None and made.label.dtype != np.uint8:
        made.targets["label"] = Target(made.label.astype(np.uint8))
    return made


def register_dataset(cls: Any, name: str) -> DatasetSpec:
    """The declaration of a user's class, which opens it; what only its objects know is asked of them."""
    facts = {"classes": getattr(cls, "CLASSES", None), "palette": getattr(cls, "PALETTE", None)}
    declared = getattr(cls, "METAINFO", None)
    facts |= declared if isinstance(declared, Mapping) else {}
    classes, palette = (
        value if isinstance(value, (list, tuple)) else () for value in (facts["classes"], facts["palette"])
    )
    return DatasetSpec(
        name=name,
        about=(inspect.getdoc(cls) or "").partition("\n")[0],
        classes=tuple(classes),
        palette=palette,
        open=lambda data, seed: UserDataset(cls, data, seed),
    )


def official_dataset(name: str) -> Any:
    """The class of a published data set, or None."""
    bare = name.rpartition(".")[2]
    if bare in ("BaseSegDataset", "CustomDataset"):
        return SegDataset
    if bare in ("ConcatDataset", "RepeatDataset", "MultiImageMixDataset"):
        from terrazzo.compat import loaders

        return getattr(loaders, bare)
    found = ours.DATASETS.hidden.get(bare) or (ours.DATASETS.get(bare) if bare in ours.DATASETS else None)
    if not isinstance(found, DatasetSpec) or found.open is not None:
        return None
    suffixes = {
        key: value if isinstance(value, str) else value[0]
        for key, value in (("img_suffix", found.img_suffix), ("seg_map_suffix", found.seg_map_suffix))
    }
    defaults = suffixes | {"reduce_zero_label": found.reduce_zero_label}

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        super(made, self).__init__(*args, **{**defaults, **kwargs})  # type: ignore[arg-type]

    palette = [[*colour] for colour in found.palette]
    body = {"__init__": init, "METAINFO": {"classes": tuple(found.classes), "palette": palette}, "__doc__": found.about}
    body |= {"CLASSES": tuple(found.classes), "PALETTE": palette, "__module__": __name__}
    made = type(bare, (SegDataset,), body)
    MADE[bare] = made
    return made


MADE: dict[str, Any] = {}
ORIGINALS["dataset"] = lambda name: MADE.get(name.rpartition(".")[2]) or official_dataset(name)
