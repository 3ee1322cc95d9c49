"""0.x `data`: data sets, loaders, and the preprocessing that their pipelines contain."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.arguments import check_keys
from terrazzo.config.reading.section import Section
from terrazzo.config.v0.pipeline import (
    Steps,
    bare_type,
    is_pipeline,
    upgrade_pipeline,
    upgrade_test_pipeline,
    upgrading,
)
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS
from terrazzo.system.text import read_lines

SPLITS = ("train", "val", "test")
# A loader's settings: old name -> new; None: it has no counterpart and needs none
LOADER: dict[str, str | None] = {
    "samples_per_gpu": "batch_size",
    "imgs_per_gpu": "batch_size",
    "workers_per_gpu": "num_workers",
    "shuffle": "sampler.shuffle",
    **{key: key for key in ("drop_last", "pin_memory", "persistent_workers", "prefetch_factor")},
    **dict.fromkeys(("dataloader_type", "dist", "num_gpus", "seed")),
}
DATASET: dict[str, str | None] = {
    "type": "type",
    "data_root": "data_root",
    "img_dir": "data_prefix.img_path",
    "ann_dir": "data_prefix.seg_map_path",
    "split": "ann_file",
    "img_suffix": "img_suffix",
    "seg_map_suffix": "seg_map_suffix",
    "classes": "metainfo.classes",
    "palette": "metainfo.palette",
    "reduce_zero_label": "reduce_zero_label",
    "ignore_index": "ignore_index",
    "pipeline": "pipeline",
    "gt_seg_map_loader_cfg": None,  # LoadAnnotations of the test pipeline
    "test_mode": None,  # 0.x read the labels anyway
    "file_client_args": None,
}
WRAPPERS: dict[str, tuple[str, ...]] = {
    "RepeatDataset": ("dataset", "times"),
    "ConcatDataset": ("datasets", "separate_eval"),
    "ClassBalancedDataset": ("dataset", "oversample_thr"),
    "MultiImageMixDataset": ("dataset", "pipeline", "skip_type_keys"),
}


@dataclass
class Upgraded:
    """The upgrade of `data`: the new sections, and the preprocessing that the pipelines contained."""

    sections: Section = field(default_factory=Section)
    for_training: list[Section] = field(default_factory=list)
    for_test: list[Section] = field(default_factory=list)
    augmented: Steps | None = None
    annotations: Section = field(default_factory=Section)  # arguments of LoadAnnotations in test pipelines


def upgrade_data(data: Section, by_epoch: bool) -> Upgraded:
    """The `*_dataloader` sections. Raises UserError for an unknown key and for a data set without a type."""
    check_keys(data, (*SPLITS, *(f"{split}_dataloader" for split in SPLITS), *LOADER), "data")
    upgraded = Upgraded()
    for split in SPLITS:
        if data.get(split):
            with upgrading(f"data.{split}"):
                loader = upgrade_loader(data, split, by_epoch)
                loader["dataset"] = upgrade_dataset(data[split], f"data.{split}", split == "train", upgraded)
                upgraded.sections.put(f"{split}_dataloader", loader, data.origin_of(split))
    return upgraded


def upgrade_loader(data: Section, split: str, by_epoch: bool) -> Section:
    """A loader without its data set: the settings of `data`, under those of `data.SPLIT_dataloader`."""
    training = split == "train"
    kind = "InfiniteSampler" if training and not by_epoch else "DefaultSampler"
    loader = Section(batch_size=1, num_workers=0, persistent_workers=True, sampler=Section(type=kind, shuffle=training))
    if training and by_epoch:
        loader["drop_last"] = True
    own = data.get(f"{split}_dataloader") or Section()
    check_keys(own, LOADER, f"data.{split}_dataloader")
    for section in (data, own):
        for key, name in LOADER.items():
            for_training = section is data and key in ("samples_per_gpu", "imgs_per_gpu", "shuffle")
            if name is not None and key in section and (training or not for_training):
                loader.take(section, key, name)
    if not loader["num_workers"]:
        loader["persistent_workers"] = False
    return loader


def upgrade_dataset(spec: Any, where: str, training: bool, upgraded: Upgraded) -> Section:
    """Upgrade a data set, several as ConcatDataset, or a wrapper around them."""
    if isinstance(spec, (list, tuple)):
        return Section(type="ConcatDataset", datasets=upgrade_datasets(spec, where, training, upgraded))
    if not isinstance(spec, Section) or "type" not in spec:
        raise UserError(f"{where}: a data set is a dict with a `type`, or a list of such")
    kind = bare_type(spec)
    if kind not in WRAPPERS:
        parts = split_lists(spec, where)
        if len(parts) > 1:
            return upgrade_dataset(parts, where, training, upgraded)
        return single_dataset(parts[0], f"{where} ({kind})", training, upgraded)
    check_keys(spec, ("type", *WRAPPERS[kind]), f"{where} ({kind})")
    wrapper = spec.copy()
    wrapper.pop("separate_eval", None)
    if "dataset" in spec:
        wrapper["dataset"] = upgrade_dataset(spec["dataset"], f"{where}.dataset", training, upgraded)
    if "datasets" in spec:
        wrapper["datasets"] = upgrade_datasets(spec["datasets"], f"{where}.datasets", training, upgraded)
    if "pipeline" in spec:
        wrapper["pipeline"] = new_pipeline(spec, f"{where}.pipeline", training, upgraded)
    return wrapper


def upgrade_datasets(specs: Any, where: str, training: bool, upgraded: Upgraded) -> list[Section]:
    return [upgrade_dataset(spec, f"{where}.{index}", training, upgraded) for index, spec in enumerate(specs)]


def split_lists(spec: Section, where: str) -> list[Section]:
    """One data set for each item of lists in img_dir, ann_dir and split; a single value serves all of them."""
    lists = {
        key: list(spec[key]) for key in ("img_dir", "ann_dir", "split") if isinstance(spec.get(key), (list, tuple))
    }
    counts = {len(items) for items in lists.values()} - {1}
    if len(counts) > 1 or 0 in counts:
        raise UserError(f"{where}: the lists {', '.join(lists)} must be of one length")
    parts = []
    for index in range(counts.pop() if counts else 1):
        part = spec.copy()
        part |= {key: items[index if len(items) > 1 else 0] for key, items in lists.items()}
        parts.append(part)
    return parts


def single_dataset(spec: Section, where: str, training: bool, upgraded: Upgraded) -> Section:
    """A data set on disk in the names of 1.x."""
    section = Section()
    if bare_type(spec) in DATASETS and bare_type(spec) not in DATASETS.raw:
        check_keys(spec, DATASET, where)
    elif own := [key for key in spec if key not in DATASET]:  # a class of the user's has arguments of its own
        warnings.warn(f"{where}: terrazzo has no such data set; passed on as they are: {', '.join(map(str, own))}")
        for key in own:
            section.take(spec, key)
    for key, name in DATASET.items():
        if name is not None and spec.get(key) is not None:
            section.take(spec, key, name)
    if bare_type(spec) == "CustomDataset":
        section["type"] = "BaseSegDataset"
    if isinstance(spec.get("classes"), str):
        section["metainfo"]["classes"] = read_names(spec["classes"], f"{where}.classes")
    if "pipeline" in spec:
        with upgrading(f"{where}.pipeline"):
            section["pipeline"] = new_pipeline(spec, f"{where}.pipeline", training, upgraded)
    return section


def read_names(path: str, where: str) -> list[str]:
    """Read the lines of a file of class names. Raises UserError if it cannot be read."""
    try:
        return read_lines(Path(path))
    except UserError as problem:
        raise UserError(f"{where}: {path} is taken as a file of class names, one a line: {problem}") from None


def new_pipeline(spec: Section, where: str, training: bool, upgraded: Upgraded) -> Any:
    """Upgrade the pipeline of a data set; the preprocessing that it contains is added to `upgraded`."""
    steps: Any = spec.get("pipeline")
    if not is_pipeline(steps):
        return steps
    if training:
        steps, preprocessor = upgrade_pipeline(steps, where)
        upgraded.for_training.append(preprocessor)
        for step in steps:
            if bare_type(step) == "LoadAnnotations" and step.get("reduce_zero_label"):
                upgraded.annotations.take(step, "reduce_zero_label")
        return steps
    options = Section()
    if spec.get("reduce_zero_label") is not False:
        options.absorb(upgraded.annotations)
    options.absorb(spec.get("gt_seg_map_loader_cfg") or {})
    steps, augmented, preprocessor = upgrade_test_pipeline(steps, where, options)
    upgraded.for_test.append(preprocessor)
    upgraded.augmented = augmented or upgraded.augmented
    return steps
