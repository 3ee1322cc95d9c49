"""`--data-root`: a config's data in another folder, in the layout of the config or in any that the finder knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.config.classes import set_classes
from terrazzo.config.config import Config
from terrazzo.data.discovery.finder import find_layout
from terrazzo.data.discovery.label_facts import label_facts
from terrazzo.data.discovery.layouts import HELD_OUT, FolderLayout
from terrazzo.data.remote import copied
from terrazzo.data.spec import CUSTOM, FOLDER, DatasetSpec
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS
from terrazzo.system.remote import is_remote_path

LOADERS = ("train", "val", "test")
LAYOUT_KEYS = ("ann_file", "holdout", "img_suffix", "seg_map_suffix", "reduce_zero_label")  # of the config's own layout

Section = dict[str, Any]


def locate(config: Config, root: str | Path | None, loaders: Sequence[str] = LOADERS) -> Config:
    """The config with its data below `root`; unchanged without one, unless it is a recipe for a user's own folder.

    In another layout than the config's, the classes are those of `metainfo` or of a file such as `classes.txt` below
    the root, or else as many as the labels have. Raises UserError where images and labels for `loaders` are missing.
    """
    values = config.to_dict()
    found = [section for name in loaders for section in sections_of(values, name)]
    if not found:
        return config

    # a recipe for a folder of the user's own takes its data from data_root by default
    is_open_recipe = config.path is None and config.name is not None and not is_declared(found[0])
    if root is None:
        if not is_open_recipe:
            return config
        root = found[0].get("data_root") or "."
        if not Path(root).is_dir():
            raise UserError(
                f"{config.name} names a data set that terrazzo does not declare, and there is no folder {root}: give "
                "the folder of the data with --data-root (images/ and labels/ below it)"
            )
    folder = copied(str(root)) if is_remote_path(str(root)) else Path(root)
    if not folder.is_dir():
        raise UserError(f"--data-root: there is no folder {folder}")

    # the layout of the config, else whatever the folder has
    if not is_open_recipe and all(has_own_layout(section, folder) for section in found):
        for name in LOADERS:
            for section in sections_of(values, name):
                section["data_root"] = str(folder)
        if not all(is_declared(section) for section in found):
            described = [*sections_of(values, "train"), *sections_of(values, "val")] or found
            use_classes(values, folder, found, described, declaration(found[0]))
    else:
        use_layout(values, find_layout(folder), loaders)
    return config.with_values(values)


def sections_of(values: Section, loader: str) -> list[Section]:
    """The data sets on disk of a loader of a config."""
    return list(data_sets(values.get(f"{loader}_dataloader")))


def data_sets(loader: Any) -> Iterator[Section]:
    """The data sets on disk of a loader's section, inside any wrappers."""
    spec = loader.get("dataset", loader) if isinstance(loader, Mapping) else None
    for part in spec if isinstance(spec, (list, tuple)) else [spec]:
        if not isinstance(part, dict):
            continue  # make_experiment says what is wrong
        inner = part.get("dataset") or part.get("datasets")
        if inner:
            yield from data_sets({"dataset": inner})
        elif part:
            yield part


def is_declared(section: Section) -> bool:
    """Report whether a data set is of a type that knows its classes and files."""
    return declaration(section).name not in (FOLDER.name, CUSTOM.name)


def declaration(section: Section) -> DatasetSpec:
    """The declared data set of a section."""
    return DATASETS.get(section.get("type", FOLDER.name))


def has_own_layout(section: Section, root: Path) -> bool:
    """Report whether the images of a section, or the file that lists them, are below `root` at the config's paths."""
    prefix = section.get("data_prefix") or declaration(section).data_prefix
    listed = section.get("ann_file")
    return (root / prefix.get("img_path", "")).is_dir() and (not listed or (root / listed).is_file())


def use_layout(values: Section, layout: FolderLayout, loaders: Sequence[str]) -> None:
    """Let every loader of a config read the splits of a folder. Raises UserError for a split that it does not have."""
    missing = [name for name in loaders if sections_of(values, name) and not serves(layout, name)]
    if missing:
        raise UserError(
            f"--data-root {layout.root}: there is no {missing[0]} split: {layout.found}, which is "
            f"{', '.join(layout.splits)} data; a split is a folder {missing[0]} in or above these, or a list "
            f"{missing[0]}.txt of names"
        )
    if layout.has_holdout:
        warnings.warn(
            f"{layout.root} has neither a folder nor a list of validation images: {HELD_OUT:.0%} of the images are "
            "held out for validation, chosen by their names"
        )
    moved = [section for name in loaders for section in sections_of(values, name)]
    declared = declaration(moved[0])
    for name in LOADERS:
        loader = values.get(f"{name}_dataloader")
        for section in sections_of(values, name) if serves(layout, name) else ():
            for key in LAYOUT_KEYS:
                section.pop(key, None)
            for step in section.get("pipeline") or ():
                step.pop("reduce_zero_label", None)
            section |= layout.section(name)
        if loader:
            loader["dataset"] = joined_once(loader["dataset"])
    use_classes(values, layout.root, moved, layout.described_sections(), declared)


def serves(layout: FolderLayout, loader: str) -> bool:
    """Report whether a folder has the split of a loader; without a test set, testing takes the validation data."""
    return loader in layout.splits or (loader == "test" and "val" in layout.splits)


def use_classes(
    values: Section, root: Path, read: Sequence[Section], described: Sequence[Section], declared: DatasetSpec
) -> None:
    """Give every data set of a config, and its model, the classes that the sections to `read` name.

    If they name none, the classes are those that the labels of the `described` sections show.
    """
    given = next((section["metainfo"] for section in read if (section.get("metainfo") or {}).get("classes")), None)
    options = {"metainfo": given} if given else found_classes(root, described, declared)
    for name in LOADERS:
        for section in sections_of(values, name):
            section |= {"type": FOLDER.name, "data_root": str(root), **options}
    if "model" in values:
        set_classes(values["model"], options["metainfo"]["classes"])


def found_classes(root: Path, sections: Sequence[Section], declared: DatasetSpec) -> Section:
    """The classes that labels show, as arguments of a data set.

    As many classes without names as the config's own data set declares are taken for these.
    """
    facts = label_facts(root, sections)
    options = facts.dataset_options()
    if facts.named_in is not None:
        return options
    count = len(options["metainfo"]["classes"])
    if count == len(declared.classes):
        palette = [list(colour) for colour in declared.palette]
        return options | {"metainfo": {"classes": list(declared.classes), "palette": palette}}
    warnings.warn(
        f"{root} has no classes.txt: {count} classes by what the labels hold; to name them, write their names into it, "
        "one a line"
    )
    return options


def joined_once(spec: Any) -> Any:
    """A data set with equal joined parts reduced to one: parts that differed in their folders are now the same."""
    if not isinstance(spec, dict):
        return spec
    if "dataset" in spec:
        return spec | {"dataset": joined_once(spec["dataset"])}
    parts = spec.get("datasets")
    return spec if not parts else parts[0] if all(part == parts[0] for part in parts) else spec
