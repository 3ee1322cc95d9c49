"""The data of a split as a tree: folders of images and labels, joined, repeated, balanced or mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from terrazzo.config.ignored import check_local
from terrazzo.errors import UserError
from terrazzo.registry import SCOPE_KEY, check_arguments
from terrazzo.system.text import read_lines

# Arguments of published data sets that change nothing here
WITHOUT_EFFECT = (
    "lazy_init", "force_apply", "ignore_keys", "serialize_data", "filter_cfg", "max_refetch", "ignore_index",
    "backend_args",
)  # fmt: skip


@dataclass(frozen=True)
class FolderData:
    """Images and labels on disk; what is None is as the data set called `type` declares it.

    `metainfo` gives other `classes` (a subset is remapped by name) and `palette`. `ignore` are stored label values that
    do not count; the order is `reduce_zero_label`, `label_map`, `ignore`. `exclude` are ends of paths of images that
    are skipped; images without a label are an error, or `unlabelled` skips them or takes them as background. `cache`
    keeps decoded images and labels, see `terrazzo.data.cache`.
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
    unlabelled: Literal["error", "skip", "background"] = "error"
    used_labels: Sequence[str] = ()
    indices: int | Sequence[int] | None = None
    test_mode: bool = False
    cache: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)  # an error when the data set is opened
    where: str = field(default="", compare=False)  # the key path in the config

    def __post_init__(self) -> None:
        names = (self.metainfo or {}).get("classes")
        if isinstance(names, str):  # a file with a name on each line, as 0.x and 1.x take it
            if not Path(names).is_file():
                raise UserError(
                    f"{self.where}.metainfo.classes is the text '{names}', neither a list of names nor a file of one "
                    f"name a line; a single name is written ('{names}',) in Python and [{names}] in YAML"
                )
            object.__setattr__(self, "metainfo", {**(self.metainfo or {}), "classes": tuple(read_lines(Path(names)))})

    @property
    def parts(self) -> tuple[DataTree, ...]:
        """None inside."""
        return ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the config names; empty where they come from the declaration."""
        return tuple((self.metainfo or {}).get("classes") or ())


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
FOLDER_KEYS = [one.name for one in dataclasses.fields(FolderData) if one.name not in ("type", "unknown", "where")]
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
    options = {key: value for key, value in section.items() if key not in ("type", SCOPE_KEY, *WITHOUT_EFFECT)}
    kind = str(section.get("type", FolderData.type))
    make = WRAPPERS.get(kind.rpartition(".")[2])
    if make is None:
        known = {key: options.pop(key) for key in FOLDER_KEYS if key in options}
        return FolderData(kind, **known, unknown=options, where=where)
    check_arguments(make, {"where": where, **options}, kind, where)
    if "dataset" in options:
        options["dataset"] = data_tree(options["dataset"], f"{where}.dataset")
    else:
        inside = enumerate(options["datasets"])
        options["datasets"] = tuple(data_tree(part, f"{where}.datasets.{index}") for index, part in inside)
    return make(**options, where=where)


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
