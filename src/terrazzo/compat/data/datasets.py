"""Data sets written as classes, those around them, and their loaders."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from terrazzo import registry as ours
from terrazzo.compat.data.metrics import eval_metrics, intersect_and_union, pre_eval_to_metrics
from terrazzo.compat.data.structures import Results
from terrazzo.compat.data.transforms import Compose, LoadAnnotations
from terrazzo.compat.engine.tools import pseudo_collate, unavailable
from terrazzo.compat.files.files import list_dir_or_file
from terrazzo.compat.registry import DATASETS, ORIGINALS
from terrazzo.data import wrappers
from terrazzo.data.spec import DatasetSpec
from terrazzo.system.palette import default_palette

# the arguments of a data set in their order, of both vocabularies
ARGUMENTS: dict[str, Any] = {
    "ann_file": "", "img_suffix": ".jpg", "seg_map_suffix": ".png", "metainfo": None, "data_root": None,
    "data_prefix": None, "filter_cfg": None, "indices": None, "serialize_data": True, "pipeline": (),
    "test_mode": False, "lazy_init": False, "max_refetch": 1000, "ignore_index": 255, "reduce_zero_label": False,
    "backend_args": None, "img_dir": None, "ann_dir": None, "split": None, "classes": None, "palette": None,
    "gt_seg_map_loader_cfg": None, "file_client_args": None,
}  # fmt: skip


def with_paths(info: Mapping[str, Any], img_dir: Any, ann_dir: Any) -> dict[str, Any]:
    """The facts of an image of 0.x, with the paths that those of 1.x have."""
    made = {key: value for key, value in info.items() if key not in ("filename", "ann")}
    made["img_path"] = str(Path(img_dir or "", info["filename"]))
    if info.get("ann"):
        made["seg_map_path"] = str(Path(ann_dir or "", info["ann"]["seg_map"]))
    return made


def chosen_colours(palette: Any, label_map: Mapping[int, int]) -> list[Any]:
    """The colours of the classes that a map keeps, in their new order."""
    return [palette[old] for _, old in sorted((new, old) for old, new in label_map.items() if new != 255)]


class BaseSegDataset(torch.utils.data.Dataset):
    """Images and class maps in folders, with the arguments and methods of both vocabularies."""

    if TYPE_CHECKING:  # the arguments are attributes

        def __getattr__(self, name: str) -> Any: ...

    METAINFO: ClassVar[dict[str, Any]] = {}
    _fully_initialized = False
    CLASSES: Any = None
    PALETTE: Any = None
    file_client = None
    metainfo = property(lambda self: copy.deepcopy(self._metainfo))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = {**ARGUMENTS, **dict(zip(ARGUMENTS, args, strict=False)), **kwargs}
        vars(self).update(given)
        prefix = {
            "img_path": given["img_dir"] or "",
            "seg_map_path": given["ann_dir"] or "",
            **(given["data_prefix"] or {}),
        }
        self.data_prefix = {key: self.joined(value) for key, value in prefix.items()}
        self.ann_file = self.split = self.joined(given["split"] or given["ann_file"] or "")
        self.img_dir, self.ann_dir = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        chosen = {key: given[key] for key in ("classes", "palette") if given[key]}
        self._metainfo = self._load_metainfo({**(given["metainfo"] or {}), **chosen})
        self.custom_classes, self.label_map = "classes" in chosen, self.get_label_map(self._metainfo.get("classes"))
        self._metainfo.update(label_map=self.label_map, reduce_zero_label=self.reduce_zero_label)
        self._metainfo["palette"] = self._update_palette()
        self.CLASSES, self.PALETTE = self._metainfo.get("classes"), self._metainfo["palette"]
        loading = {"reduce_zero_label": False, **(given["gt_seg_map_loader_cfg"] or {})}
        self.gt_seg_map_loader = LoadAnnotations(**loading)
        self.pipeline, self._fully_initialized = Compose(given["pipeline"]), False
        if not given["lazy_init"]:
            self.full_init()

    def joined(self, path: Any) -> str:
        return str(Path(self.data_root or "") / str(path)) if path else str(path)

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict[str, Any]:
        declared = {"classes": cls.CLASSES, "palette": cls.PALETTE} if cls.CLASSES is not None else {}
        found = {**declared, **copy.deepcopy(cls.METAINFO), **(metainfo or {})}
        if isinstance(found.get("classes"), str):
            found["classes"] = Path(found["classes"]).read_text().splitlines()
        return found

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> dict[int, int] | None:
        old = cls.METAINFO.get("classes") or cls.CLASSES
        if new_classes is None or old is None or [*new_classes] == [*old]:
            return None
        if not set(new_classes) <= set(old):
            raise ValueError(f"new classes {new_classes} is not a subset of classes {old} in METAINFO.")
        return {index: [*new_classes].index(name) if name in new_classes else 255 for index, name in enumerate(old)}

    def _update_palette(self) -> list[Any]:
        classes, palette = self._metainfo.get("classes") or (), self._metainfo.get("palette") or []
        if not palette or len(palette) == len(classes):
            return palette or default_palette(len(classes))
        if self.label_map is None:
            raise ValueError(f"palette has {len(palette)} colours for {len(classes)} classes")
        return chosen_colours(palette, self.label_map)

    def full_init(self) -> None:
        if self._fully_initialized:
            return
        if type(self).load_annotations is not BaseSegDataset.load_annotations:  # a user's, of 0.x
            folders = (self.img_dir, self.img_suffix, self.ann_dir, self.seg_map_suffix, self.split)
            self.img_infos = self.load_annotations(*folders)
            self.data_list = [self.from_0x(info) for info in self.img_infos]
        else:
            self.data_list = self.filter_data(self.load_data_list())
            self.img_infos = [self.to_0x(info) for info in self.data_list]
        if self.indices is not None:
            some = range(self.indices) if isinstance(self.indices, int) else self.indices
            self.data_list = [self.data_list[index] for index in some]
        self._fully_initialized = True

    def filter_data(self, data_list: Any = None) -> list[Any]:
        return self.data_list if data_list is None else data_list

    def _join_prefix(self) -> None:
        """Put the root before the paths; the constructor has done it, unless a class goes around it."""
        if "img_dir" not in vars(self):
            self.data_prefix = {key: self.joined(value) for key, value in (self.data_prefix or {}).items()}
            self.ann_file = self.joined(self.ann_file or "")

    def load_data_list(self) -> list[dict[str, Any]]:
        folder, labels = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        if self.ann_file and Path(self.ann_file).is_file():
            names = [line + self.img_suffix for line in Path(self.ann_file).read_text().split()]
        else:
            names = [*list_dir_or_file(folder, list_dir=False, suffix=self.img_suffix, recursive=True)]
        stems = [name[: len(name) - len(self.img_suffix)] for name in names]
        infos = [{"filename": name, **({"ann": {"seg_map": stem + self.seg_map_suffix}} if labels else {})}
                 for name, stem in zip(names, stems, strict=True)]  # fmt: skip
        return sorted(map(self.from_0x, infos), key=lambda info: info["img_path"])

    def facts(self) -> dict[str, Any]:
        return {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}

    def load_annotations(self, *folders: Any) -> list[Any]:
        return [self.to_0x(info) for info in self.load_data_list()]

    def to_0x(self, info: Mapping[str, Any]) -> dict[str, Any]:
        label = {"ann": {"seg_map": _relative(info["seg_map_path"], self.ann_dir)}} if info.get("seg_map_path") else {}
        return {"filename": _relative(info.get("img_path", ""), self.img_dir), **label}

    def from_0x(self, info: Mapping[str, Any]) -> dict[str, Any]:
        return with_paths(info, self.img_dir, self.ann_dir) | self.facts()

    def __len__(self) -> int:
        return len(self.data_list)

    def __getitem__(self, idx: int) -> Any:
        if type(self).prepare_train_img is not BaseSegDataset.prepare_train_img:
            return self.prepare_test_img(idx) if self.test_mode else self.prepare_train_img(idx)
        return self.prepare_data(idx)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        return copy.deepcopy(self.data_list[idx]) | {"sample_idx": idx}

    def prepare_data(self, idx: int) -> Any:
        return self.pipeline(Results(self.get_data_info(idx)))

    def get_ann_info(self, idx: int) -> Any:
        return self.img_infos[idx].get("ann")

    def pre_pipeline(self, results: Any) -> None:
        results.update(self.facts(), img_prefix=self.img_dir, seg_prefix=self.ann_dir)

    def prepare_train_img(self, idx: int) -> Any:
        results = Results(img_info=self.img_infos[idx], ann_info=self.get_ann_info(idx))
        self.pre_pipeline(results)
        return self.pipeline(results)

    def prepare_test_img(self, idx: int) -> Any:
        return self.prepare_train_img(idx)

    def get_gt_seg_map_by_idx(self, index: int) -> Any:
        return self.gt_seg_map_loader(Results(self.data_list[index]))["gt_seg_map"]

    def get_gt_seg_maps(self, *_: Any) -> Any:
        return map(self.get_gt_seg_map_by_idx, range(len(self)))

    def pre_eval(self, preds: Any, indices: Any) -> list[Any]:
        """0.x: the areas of predicted class maps, for `evaluate`."""
        several = [indices] if isinstance(indices, int) else indices
        maps = zip(preds if isinstance(preds, list) else [preds], map(self.get_gt_seg_map_by_idx, several), strict=True)
        given: Any = (len(self.CLASSES), self.ignore_index, None, self.reduce_zero_label)
        return [intersect_and_union(predicted, label, *given) for predicted, label in maps]

    def evaluate(
        self, results: Any, metric: Any = "mIoU", logger: Any = None, gt_seg_maps: Any = None, **_: Any
    ) -> dict[str, float]:
        """0.x: the scores of class maps, or of what `pre_eval` gave: means, then those of the classes."""
        if isinstance(results[0], (np.ndarray, str)):
            labels = self.get_gt_seg_maps() if gt_seg_maps is None else gt_seg_maps
            given: Any = (len(self.CLASSES), self.ignore_index, metric, None, None, self.reduce_zero_label)
            found = eval_metrics(results, labels, *given)
        else:
            found = pre_eval_to_metrics(results, metric)
        means = {key if key == "aAcc" else f"m{key}": np.nanmean(value) for key, value in found.items()}
        each = [(f"{key}.{name}", one) for key, value in found.items() if key != "aAcc"
                for name, one in zip(self.CLASSES, value, strict=True)]  # fmt: skip
        return {key: round(float(value), 4) for key, value in (means | dict(each)).items()}

    def get_classes_and_palette(self, classes: Any = None, palette: Any = None) -> tuple[Any, Any]:
        """0.x: some of the classes, or of a file with their names, and their colours."""
        self.custom_classes = classes is not None
        if classes is None:
            return self.CLASSES, self.PALETTE
        names = Path(classes).read_text().splitlines() if isinstance(classes, str) else classes
        self.label_map = self.get_label_map(names)
        return names, self.get_palette_for_custom_classes(names, palette)

    def get_palette_for_custom_classes(self, class_names: Any, palette: Any = None) -> Any:
        if self.label_map:
            return chosen_colours(self.PALETTE, self.label_map)
        return palette or self.PALETTE or default_palette(len(class_names))


for _name in ARGUMENTS.keys() - vars(BaseSegDataset).keys():  # of classes that go around the constructor
    setattr(BaseSegDataset, _name, ARGUMENTS[_name])


def _relative(path: Any, folder: Any) -> str:
    return str(Path(path).relative_to(folder)) if folder and Path(path).is_relative_to(folder) else str(path)


class ConcatDataset(torch.utils.data.ConcatDataset):
    """Data sets one after the other; the facts are the first one's."""

    full_init = staticmethod(lambda: None)  # the inner data sets have done it

    def __init__(self, datasets: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(DATASETS.build(item) if isinstance(item, Mapping) else item for item in datasets)
        self.dataset = self.datasets[0]
        vars(self).update({name: getattr(self.dataset, name, None) for name in ("metainfo", "CLASSES", "PALETTE")})


class RepeatDataset(ConcatDataset):
    def __init__(self, dataset: Any, times: int, lazy_init: bool = False) -> None:
        super().__init__([DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset] * times)


def build_dataloader(
    dataset: Any, samples_per_gpu: int = 1, workers_per_gpu: int = 0, *_: Any, shuffle: bool = True, **__: Any
) -> Any:
    options: dict[str, Any] = {"num_workers": workers_per_gpu, "collate_fn": pseudo_collate}
    return torch.utils.data.DataLoader(dataset, samples_per_gpu, shuffle=shuffle, **options)


TABLE: dict[str, Any] = {
    "build_dataset": lambda cfg, default_args=None: DATASETS.build(cfg, default_args=default_args),
    "MultiImageMixDataset": wrappers.MultiImageMixDataset,
    **unavailable("ClassBalancedDataset", "balance classes by rare_class_sampling in the data set's section"),
}
CustomDataset = BaseDataset = BaseSegDataset
KINDS = (BaseSegDataset, ConcatDataset, RepeatDataset)
MADE: dict[str, Any] = {"CustomDataset": BaseSegDataset, **{kind.__name__: kind for kind in KINDS}}


def official_dataset(name: str) -> Any:
    """The class of a published data set, or None."""
    bare = name.rpartition(".")[2]
    if bare in MADE:
        return MADE[bare]
    found = ours.DATASETS.hidden.get(bare) or (ours.DATASETS.get(bare) if bare in ours.DATASETS else None)
    if not isinstance(found, DatasetSpec) or found.open is not None:
        return None
    suffixes = {"img_suffix": found.img_suffix, "seg_map_suffix": found.seg_map_suffix}
    defaults: dict[str, Any] = {key: one if isinstance(one, str) else one[0] for key, one in suffixes.items()}
    defaults["reduce_zero_label"] = found.reduce_zero_label

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        super(made, self).__init__(*args, **{**defaults, **kwargs})  # type: ignore[arg-type]

    classes, palette = tuple(found.classes), [[*colour] for colour in found.palette]
    body = {"__init__": init, "METAINFO": {"classes": classes, "palette": palette}, "CLASSES": classes}
    body |= {"PALETTE": palette, "__doc__": found.about, "__module__": __name__}
    MADE[bare] = made = type(bare, (BaseSegDataset,), body)
    return made


ORIGINALS["dataset"] = official_dataset
