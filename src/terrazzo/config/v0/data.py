"""0.x `data`: data sets, loaders, and the preprocessing that their pipelines contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.config.reading.section import Section
from terrazzo.config.sections import check_keys
from terrazzo.config.v0.pipeline import (
    Steps,
    bare_type,
    is_pipeline,
    origin_of,
    section_at,
    upgrade_pipeline,
    upgrade_test_pipeline,
)
from terrazzo.errors import UserError

SPLITS = ("train", "val", "test")
# A loader's settings: old name -> new; None: it has no counterpart and needs none
LOADER: dict[str, str | None] = {
    "samples_per_gpu": "batch_size",
    "imgs_per_gpu": "batch_size",
    "workers_per_gpu": "num_workers",
    "shuffle": "sampler.shuffle",
    "drop_last": "drop_last",
    "pin_memory": "pin_memory",
    "persistent_workers": "persistent_workers",
    "prefetch_factor": "prefetch_factor",
    "dataloader_type": None,
    "dist": None,
    "num_gpus": None,
    "seed": None,
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


def upgrade_data(data: Mapping[str, Any], by_epoch: bool) -> Upgraded:
    """The `*_dataloader` sections. Raises UserError for an unknown key and for a data set without a type."""
    check_keys(data, (*SPLITS, *(f"{split}_dataloader" for split in SPLITS), *LOADER), "data")
    upgraded = Upgraded()
    for split in SPLITS:
        if data.get(split):
            dataset = upgrade_dataset(data[split], f"data.{split}", split == "train", upgraded)
            loader = upgrade_loader(data, split, by_epoch)
            loader.put("dataset", dataset, origin_of(data, split))
            upgraded.sections.put(f"{split}_dataloader", loader, origin_of(data, split))
    return upgraded


def upgrade_loader(data: Mapping[str, Any], split: str, by_epoch: bool) -> Section:
    """A loader without its data set: the settings of `data`, under those of `data.SPLIT_dataloader`."""
    training = split == "train"
    loader = section_at(origin_of(data, split), batch_size=1, num_workers=0, persistent_workers=True)
    sampler = "InfiniteSampler" if training and not by_epoch else "DefaultSampler"
    loader.put("sampler", section_at(origin_of(data, split), type=sampler, shuffle=training), origin_of(data, split))
    if training and by_epoch:
        loader.put("drop_last", True, origin_of(data, split))
    own = data.get(f"{split}_dataloader") or {}
    check_keys(own, LOADER, f"data.{split}_dataloader")
    for section in (data, own):
        for key, name in LOADER.items():
            shared_only = section is data and not training and key in ("samples_per_gpu", "imgs_per_gpu", "shuffle")
            if key not in section or name is None or shared_only:
                continue
            target, name = (loader["sampler"], "shuffle") if name == "sampler.shuffle" else (loader, name)
            target.put(name, section[key], origin_of(section, key))
    if not loader["num_workers"]:
        loader["persistent_workers"] = False
    return loader


def upgrade_dataset(spec: Any, where: str, training: bool, upgraded: Upgraded) -> Section:
    """Upgrade a data set, several as ConcatDataset, or a wrapper around them."""
    if isinstance(spec, (list, tuple)):
        parts = [upgrade_dataset(part, f"{where}.{index}", training, upgraded) for index, part in enumerate(spec)]
        return section_at(origin_of(spec[0], "type"), type="ConcatDataset", datasets=parts)
    if not isinstance(spec, dict) or "type" not in spec:
        raise UserError(f"{where}: a data set is a dict with a `type`, or a list of such")
    kind = bare_type(spec)
    if kind in WRAPPERS:
        check_keys(spec, ("type", *WRAPPERS[kind]), f"{where} ({kind})")
        wrapper = Section()
        for key, value in spec.items():
            if key in ("dataset", "datasets"):
                value = (
                    [upgrade_dataset(part, f"{where}.{key}.{i}", training, upgraded) for i, part in enumerate(value)]
                    if key == "datasets"
                    else upgrade_dataset(value, f"{where}.{key}", training, upgraded)
                )
            elif key == "pipeline":
                value = new_pipeline(spec, f"{where}.pipeline", training, upgraded)
            if key != "separate_eval":
                wrapper.put(key, value, origin_of(spec, key))
        return wrapper
    parts = split_lists(spec, where)
    if len(parts) > 1:
        return upgrade_dataset(parts, where, training, upgraded)
    return single_dataset(parts[0], f"{where} ({kind})", training, upgraded)


def split_lists(spec: Mapping[str, Any], where: str) -> list[Section]:
    """One data set for each item of lists in img_dir, ann_dir and split; a single value serves all of them."""
    lists = {
        key: list(spec[key]) for key in ("img_dir", "ann_dir", "split") if isinstance(spec.get(key), (list, tuple))
    }
    counts = {len(items) for items in lists.values()} - {1}
    if len(counts) > 1 or 0 in counts:
        raise UserError(f"{where}: the lists {', '.join(lists)} must be of one length")
    parts = []
    for index in range(counts.pop() if counts else 1):
        part = Section()
        for key, value in spec.items():
            items = lists.get(key)
            part.put(key, value if items is None else items[index if len(items) > 1 else 0], origin_of(spec, key))
        parts.append(part)
    return parts


def single_dataset(spec: Section, where: str, training: bool, upgraded: Upgraded) -> Section:
    """A data set on disk in the names of 1.x."""
    check_keys(spec, DATASET, where)
    section, kind = Section(), bare_type(spec)
    for key, name in DATASET.items():
        value = spec.get(key)
        if key not in spec or name is None or (value is None and key != "pipeline"):
            continue
        if key == "pipeline":
            value = new_pipeline(spec, f"{where}.pipeline", training, upgraded)
        elif key == "type" and kind == "CustomDataset":
            value = "BaseSegDataset"
        elif key == "classes" and isinstance(value, str):
            value = read_names(value, f"{where}.classes")
        group, _, inner = name.rpartition(".")
        target = section
        if group:
            if group not in section:
                section.put(group, Section(), origin_of(spec, key))
            target = section[group]
        target.put(inner, value, origin_of(spec, key))
    return section


def read_names(path: str, where: str) -> list[str]:
    """Read the lines of a file of class names. Raises UserError if it cannot be read."""
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as problem:
        raise UserError(f"{where}: {path} is taken as a file of class names, one a line: {problem.strerror}") from None


def new_pipeline(spec: Mapping[str, Any], where: str, training: bool, upgraded: Upgraded) -> Any:
    """Upgrade the pipeline of a data set; the preprocessing that it contains is added to `upgraded`."""
    steps = spec.get("pipeline")
    if not is_pipeline(steps):
        return steps
    assert isinstance(steps, list)
    if training:
        steps, preprocessor = upgrade_pipeline(steps, where)
        upgraded.for_training.append(preprocessor)
        for step in steps:
            if bare_type(step) == "LoadAnnotations" and step.get("reduce_zero_label") and not upgraded.annotations:
                upgraded.annotations.put("reduce_zero_label", True, origin_of(step, "reduce_zero_label"))
        return steps
    options = Section()
    if spec.get("reduce_zero_label") is not False:
        options.absorb(upgraded.annotations)
    if spec.get("gt_seg_map_loader_cfg"):
        options.absorb(spec["gt_seg_map_loader_cfg"], origin_of(spec, "gt_seg_map_loader_cfg"))
    steps, augmented, preprocessor = upgrade_test_pipeline(steps, where, options)
    upgraded.for_test.append(preprocessor)
    upgraded.augmented = augmented or upgraded.augmented
    return steps
