"""The data of a split as a tree: folders of images and labels, joined, repeated, balanced or mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from terrazzo.arguments import check_arguments, check_keys, construct, fits, located, shown, signature
from terrazzo.config.ignored import check_local
from terrazzo.config.sections import ANY, Only, check_value, whole_number
from terrazzo.errors import UserError
from terrazzo.registry import SCOPE_KEY
from terrazzo.system.text import read_lines

# Arguments of published data sets that change nothing here
WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("lazy_init", "force_apply", "ignore_keys", "serialize_data", "max_refetch", "backend_args"), ANY),
    "filter_cfg": Only((None, {}), "`exclude` skips images by the ends of their paths"),
}  # fmt: skip
PREFIXES = ("img_path", "seg_map_path", "img_path2", "depth_map_path")  # keys of data_prefix
METAINFO = ("classes", "palette")


@dataclass(frozen=True)
class FolderData:
    """Images and labels on disk; what is None is as the data set called `type` declares it.

    `metainfo` gives other `classes` (a subset is remapped by name) and `palette`. `ignore` are stored label values that
    do not count; the order is `reduce_zero_label`, `label_map`, `ignore`. `exclude` are ends of paths of images that
    are skipped; images without a label are an error, or `unlabelled` skips them, takes them as background or leaves
    their pixels to a teacher. `cache` keeps decoded images and labels, see `terrazzo.data.cache`. `windows`
    are those of scenes that are samples, see `terrazzo.data.scenes`.
    """

    type: str = "BaseSegDataset"
    pipeline: Sequence[Any] = ()
    data_root: str | Path = ""
    data_prefix: Mapping[str, str] | None = None
    ann_file: str | Path = ""
    img_suffix: str | Sequence[str] | None = None
    seg_map_suffix: str | Sequence[str] | None = None
    img_suffix2: str | Sequence[str] | None = None
    depth_map_suffix: str | Sequence[str] | None = None
    metainfo: Mapping[str, Any] | None = None
    reduce_zero_label: bool | None = None
    label_map: dict[Any, Any] | None = None
    ignore: Sequence[Any] = ()
    label_format: Any = None
    holdout: dict[str, Any] | None = None
    exclude: str | Sequence[str] = ()
    unlabelled: Literal["error", "skip", "background", "teacher"] = "error"
    used_labels: Sequence[str] = ()
    indices: int | Sequence[int] | None = None
    test_mode: bool = False
    cache: str | None = None
    windows: dict[str, Any] | None = None
    mistake: str = ""  # in its keys: an error when the data set is opened
    where: str = field(default="", compare=False)  # the key path in the config
    section: Any = field(default=None, compare=False)  # as written, for a data set that a class reads

    @property
    def parts(self) -> tuple[DataTree, ...]:
        """None inside."""
        return ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the config names; empty where they come from the declaration."""
        return tuple(map(str, (self.metainfo or {}).get("classes") or ()))


@dataclass(frozen=True)
class ConcatenatedData:
    """Several data sets one after the other."""

    datasets: tuple[DataTree, ...]
    where: str = field(default="", compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError(f"{self.where}: ConcatDataset: `datasets` is empty")

    @property
    def parts(self) -> tuple[DataTree, ...]:
        """The data sets inside."""
        return self.datasets


@dataclass(frozen=True)
class WrappedData:
    """A tree around one other."""

    dataset: DataTree
    where: str = field(default="", compare=False, kw_only=True)

    @property
    def parts(self) -> tuple[DataTree, ...]:
        """The data set inside."""
        return (self.dataset,)


@dataclass(frozen=True)
class RepeatedData(WrappedData):
    """A data set `times` over."""

    times: int


@dataclass(frozen=True)
class ClassBalancedData(WrappedData):
    """A data set whose images with rare classes come several times."""

    oversample_thr: float

    def __post_init__(self) -> None:
        if not 0 < self.oversample_thr <= 1:
            share = self.oversample_thr
            raise UserError(f"{self.where}: ClassBalancedDataset: oversample_thr is a share of the images, not {share}")


@dataclass(frozen=True)
class MixedData(WrappedData):
    """A data set whose samples go through a second pipeline, in which several may be mixed."""

    pipeline: Sequence[Any]
    skip_type_keys: Sequence[str] | None = None


DataTree = FolderData | ConcatenatedData | RepeatedData | ClassBalancedData | MixedData
INTERNAL = ("type", "mistake", "where", "section")
FOLDER_KEYS = [one.name for one in dataclasses.fields(FolderData) if one.name not in INTERNAL]
HINTS = signature(FolderData).types
IGNORED = 255
WRAPPERS: dict[str, Callable[..., DataTree]] = {
    "ConcatDataset": ConcatenatedData,
    "RepeatDataset": RepeatedData,
    "ClassBalancedDataset": ClassBalancedData,
    "MultiImageMixDataset": MixedData,
}


def data_tree(section: Mapping[str, Any], where: str = "dataset") -> DataTree:
    """Return the tree of a data section. Raises UserError naming the key at fault.

    A key that a data set on disk does not know is an error only when that is opened: to use a model needs no data.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where} is a data set with a `type`, not {section!r}")
    check_local(section.get("backend_args"), f"{where}.backend_args")
    for key, does in WITHOUT_EFFECT.items():
        check_value(section, key, does, f"{where}.{key}")
    options = {key: value for key, value in section.items() if key not in ("type", SCOPE_KEY, *WITHOUT_EFFECT)}
    kind = str(section.get("type", FolderData.type))
    make = WRAPPERS.get(kind.rpartition(".")[2])
    if make is None:
        return folder_data(section, options, kind, where)
    if "dataset" in options:
        options["dataset"] = data_tree(options["dataset"], f"{where}.dataset")
    if isinstance(options.get("datasets"), (list, tuple)):
        inside = enumerate(options["datasets"])
        options["datasets"] = tuple(data_tree(part, f"{where}.datasets.{index}") for index, part in inside)
    return construct(make, options | {"where": where}, kind, where, section)


def folder_data(section: Mapping[str, Any], options: dict[str, Any], kind: str, where: str) -> FolderData:
    """A data set on disk, with the first mistake among its keys."""
    ignored = options.pop("ignore_index", None)
    known = {key: options[key] for key in FOLDER_KEYS if key in options}
    metainfo = known.get("metainfo")
    written = metainfo.get("classes") if isinstance(metainfo, Mapping) else None
    if metainfo is not None and written is not None:
        names = names_in(written) if isinstance(written, str) else written
        known["metainfo"] = {**metainfo, "classes": names if fits(names, Sequence[str | float]) else []}
    mistake = ""
    try:
        check_arguments(FolderData, options | known, kind, where, section)
        check_keys(known.get("data_prefix") or {}, PREFIXES, f"{where}.data_prefix")
        check_keys(metainfo or {}, METAINFO, f"{where}.metainfo")
        if ignored not in (None, IGNORED):
            label = whole_number(section, "ignore_index", IGNORED, where, 0, IGNORED)
            known["ignore"] = (*(known.get("ignore") or ()), label)
        if written and not known["metainfo"]["classes"]:
            tuple_of_one = f"; one name is written ({written!r},), with a comma" if isinstance(written, str) else ""
            text = f"{where}.metainfo.classes must be a list of names, not {shown(written)}{tuple_of_one}"
            raise UserError(located(metainfo, "classes", text))
    except UserError as problem:
        mistake = str(problem)
        known = {key: value for key, value in known.items() if fits(value, HINTS[key])}
    return FolderData(kind, **known, mistake=mistake, where=where, section=section)


def names_in(path: str) -> list[str]:
    """The class names in a text file, one a line; none if there is no such file."""
    with suppress(ValueError):  # a UserError too
        return read_lines(Path(path))
    return []


def folders(tree: DataTree) -> Iterator[FolderData]:
    """The data sets on disk inside a tree."""
    if isinstance(tree, FolderData):
        yield tree
    for part in tree.parts:
        yield from folders(part)


def changed_folders(tree: DataTree, change: Callable[[FolderData], FolderData]) -> DataTree:
    """Return the tree with `change` applied to each of its data sets on disk."""
    if isinstance(tree, FolderData):
        return change(tree)
    if isinstance(tree, ConcatenatedData):
        return dataclasses.replace(tree, datasets=tuple(changed_folders(part, change) for part in tree.parts))
    return dataclasses.replace(tree, dataset=changed_folders(tree.dataset, change))


def with_pipeline(tree: DataTree, pipeline: Sequence[Any]) -> DataTree:
    """Return the tree with another pipeline in each of its data sets on disk."""
    return changed_folders(tree, lambda data: dataclasses.replace(data, pipeline=tuple(pipeline)))


def same_files(one: DataTree, other: DataTree) -> bool:
    """Return True if two trees name the same images and labels, whatever their pipelines."""
    return with_pipeline(one, ()) == with_pipeline(other, ())
