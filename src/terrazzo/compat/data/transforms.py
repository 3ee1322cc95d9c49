"""Transforms of `results` dicts as users extend and call them; the official ones are terrazzo's."""

import inspect
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo import registry as ours
from terrazzo.arguments import check_arguments, check_keys, signature
from terrazzo.compat.data import structures
from terrazzo.compat.data.inner import ATTRIBUTES, CHANGED, METHODS, NOT_CALLED, OLDER, ORDERS, SHAPES, drawing
from terrazzo.compat.data.structures import FACTS, MAPS, SAME, DataContainer, PixelData, SegDataSample
from terrazzo.compat.files.image import imnormalize, imread
from terrazzo.compat.models.module import calls, overrides
from terrazzo.compat.registry import ORIGINALS, TRANSFORMS, arguments_of
from terrazzo.config.ignored import IGNORED
from terrazzo.config.reading.section import Section, convert
from terrazzo.config.v0.pipeline import DROPPED, RENAMED, upgrade_test_pipeline
from terrazzo.sample import Sample

FACTS_0X = ("filename", "ori_filename", *FACTS, "img_norm_cfg")
OF_BOXES = ("with_bbox", "with_label", "with_seg", "with_keypoints")  # mmcv's LoadAnnotations has them
META_KEYS = (*FACTS, "img_path", "seg_map_path", "reduce_zero_label")


class BaseTransform:
    """A transform of `results` dicts."""

    older = False  # as in 0.x
    shows: tuple[str, ...] = ()  # the attributes that name it
    takes: tuple[str, ...] = ()  # the arguments of a loading step

    def __call__(self, results: Any) -> Any:
        return self.transform(results)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.shows)})"


class Compose:
    """Transforms one after the other, until one gives None."""

    def __init__(self, transforms: Any) -> None:
        steps = _newer(transforms or [])
        self.transforms = [TRANSFORMS.build(item) if isinstance(item, Mapping) else item for item in steps]

    def __call__(self, data: Any) -> Any:
        for transform in self.transforms:
            data = None if data is None else transform(data)
        return data

    transform = __call__


def _newer(steps: Any) -> Any:
    """The steps of a pipeline in the 1.x vocabulary, in which the model normalises images and pads them."""
    kinds = {str(item.get("type")) for item in steps if isinstance(item, Mapping)}
    older = kinds & {"Normalize", "Collect", "MultiScaleFlipAug", *DROPPED} - {*TRANSFORMS.module_dict}
    if not older or not all(isinstance(item, Mapping) for item in steps):
        return steps
    return upgrade_test_pipeline(convert([*map(dict, steps)], Section), "pipeline", Section())[0]


class OfficialFace(BaseTransform):
    """One of terrazzo's transforms, called with a `results` dict; its inner methods are called where a user's are."""

    _ours: Any
    backend_args: Any = None
    reads = property(lambda self: self._ours.reads)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of 0.x where only that has the arguments, such as a config's `img_scale`."""
        kind = cls._ours.__name__
        as_before = {*kwargs} & {*OLDER.get(kind, ()), "flip_ratio"} - {*signature(cls._ours).names}
        return object.__new__(
            official_transform(f"0.x {kind}") if as_before and cls is official_transform(kind) else cls
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kind, takes = self._ours.__name__, signature(self._ours).names
        before: Any = OLDER.get(kind) if self.older else None
        names = [*before] if before else ORDERS[kind].split() if kind in ORDERS else [*takes]
        with arguments_of(kind):
            assert len(args) <= len(names), f"{len(args)} arguments by position, and there are {', '.join(names)}"
            options = dict(zip(names, args, strict=False)) | kwargs
            if before:
                options = {RENAMED.get(kind, {}).get(key, key): value for key, value in options.items()}
                check_keys(options, before, kind)
                vars(self).update(before | options, _given=options)
                vars(self).update(ATTRIBUTES[f"0.x {kind}"](self))
            else:
                by_own = options.get("resize_type") in TRANSFORMS.module_dict  # which takes further ones
                dropped = options if by_own else IGNORED.get(kind, {})
                kept = {key: value for key, value in options.items() if key in takes or key not in dropped}
                check_arguments(self._ours, kept, kind, "pipeline")
                step = self._ours(**kept)
                own = {key: getattr(step, key) for key in takes if hasattr(step, key)}
                vars(self).update(own | options, _given=options)
                vars(self).update(ATTRIBUTES.get(kind, lambda _: {})(self))
        shown = (*before,) if before else takes
        self.shows = (*shown, "backend_args") if self._ours.reads else shown
        unused = [name for name in NOT_CALLED.get(kind, "").split() if overrides(self, name)]
        if unused := [name for name in unused if not calls(type(self), name)]:
            warnings.warn(f"{type(self).__name__}: terrazzo's {kind} does not call {', '.join(unused)}", stacklevel=2)

    @property
    def _step(self) -> Any:
        """Terrazzo's transform with the attributes as they are."""
        values = {key: getattr(self, key) for key in signature(self._ours).names if hasattr(self, key)}
        known, step = vars(self).get("_made", ({}, None))
        if step is None or [*map(id, known.values())] != [*map(id, values.values())]:
            step = self._ours(**values)
            self._made = values, step
        return step

    def transform(self, results: Any) -> Any:
        kind = self._ours.__name__
        inner = METHODS.get(f"0.x {kind}" if self.older else kind) or METHODS.get(kind, {})
        by_theirs = getattr(self, "resize_type", "") in TRANSFORMS.module_dict
        if by_theirs or (self.older and kind in OLDER) or any(overrides(self, name) for name in inner):
            with arguments_of(kind):
                return self._in_steps(results)  # type: ignore[attr-defined]
        paths = [Path(results[key]) if results.get(key) else None for key in ("img_path", "seg_map_path")]
        sample = structures.to_sample(results, Sample(image_path=paths[0], label_path=paths[1], meta={}))
        with arguments_of(kind):
            changed = self._step(sample, drawing())
        made: Any = structures.to_results(changed, older=self.older)
        default = "" if np.shape(made.get("img")) == np.shape(results.get("img")) else "img_shape"
        keys = ["img", *[MAPS.get(name, f"gt_{name}") for name in changed.targets], *CHANGED.get(kind, default).split()]
        made.update({key: made[as_that] for key, as_that in SHAPES.get(kind, {}).items()})
        own = {new: old for old, new in SAME.items() if old in results and type(results) is dict}
        results.update({own.get(key, key): made[key] for key in (made if self._ours.reads else keys) if key in made})
        return results


class Loading(BaseTransform):
    """A step that reads a file; what it is given are its attributes."""

    ignore_empty = to_float32 = False
    reduce_zero_label: Any = None
    backend_args = file_client = None
    file_client_args: Any = {"backend": "disk"}  # noqa: RUF012 - never written to
    color_type = "color"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kind = type(self).__name__
        with arguments_of(kind):
            assert len(args) <= len(self.takes), f"{len(args)} arguments by position, of {', '.join(self.takes)}"
            options = dict(zip(self.takes, args, strict=False)) | kwargs
            check_keys(options, dict.fromkeys([*self.takes, *self.shows, "file_client_args", *OF_BOXES]), kind)
        vars(self).update(options)


class LoadImageFromFile(Loading):
    """Read the image of `results` into `img`, in BGR order."""

    reads = "image"
    takes = ("to_float32", "color_type", "imdecode_backend", "file_client_args", "ignore_empty")
    shows = ("ignore_empty", "to_float32", "color_type", "imdecode_backend", "backend_args")
    imdecode_backend = "cv2"

    def transform(self, results: Any) -> Any:
        path = results.get("img_path") or Path(results.get("img_prefix") or "", results["img_info"]["filename"])
        image = imread(path, self.color_type, backend=self.imdecode_backend)
        image = image.astype(np.float32) if self.to_float32 else image
        results["img"] = image
        if self.older or not results.get("img_path"):  # as in 0.x
            info, norm = results.get("img_info", {}), np.ones(np.atleast_3d(image).shape[2], np.float32)
            results.update(filename=str(path), ori_filename=info.get("filename", str(path)), scale_factor=1.0)
            results.update(dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), image.shape))
            results["img_norm_cfg"] = {"mean": norm * 0, "std": norm, "to_rgb": False}
        else:
            results.update(img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results


class Normalize(BaseTransform):
    """Subtract the mean and divide by the deviation, in RGB order with `to_rgb`."""

    shows = ("mean", "std", "to_rgb")

    def __init__(self, mean: Any, std: Any, to_rgb: bool = True) -> None:
        self.mean, self.std, self.to_rgb = np.float32(mean), np.float32(std), to_rgb

    def transform(self, results: Any) -> Any:
        results["img"] = imnormalize(results["img"], self.mean, self.std, self.to_rgb)
        results["img_norm_cfg"] = {"mean": self.mean, "std": self.std, "to_rgb": self.to_rgb}
        return results


class LoadAnnotations(Loading):
    """Read the class map of `results` into `gt_seg_map`."""

    reads = "label"
    takes = ("reduce_zero_label", "backend_args", "imdecode_backend")
    shows = ("reduce_zero_label", "imdecode_backend", "backend_args")
    imdecode_backend = "pillow"

    def _load_seg_map(self, results: Any) -> None:
        path = results.get("seg_map_path") or Path(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        label = imread(path, "unchanged", backend=self.imdecode_backend).squeeze().astype(np.uint8)
        if self.reduce_zero_label is None:
            self.reduce_zero_label = results.get("reduce_zero_label")
        if self.reduce_zero_label:
            label = np.where((label == 0) | (label == 255), 255, label - 1).astype(np.uint8)
        mapped = label.copy()
        for old, new in (results.get("label_map") or {}).items():
            mapped[label == old] = new
        key = "gt_semantic_seg" if self.older or not results.get("seg_map_path") else "gt_seg_map"
        results[key] = mapped
        results.setdefault("seg_fields", []).append(key)

    def transform(self, results: Any) -> Any:
        self._load_seg_map(results)
        return results


def to_tensor(data: Any) -> torch.Tensor:
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(data))
    return torch.as_tensor([data] if isinstance(data, (int, float)) else data)


def _as_tensor(value: Any, key: str) -> torch.Tensor:
    """An image (H, W, C) as (C, H, W), a map (H, W) as whole numbers (1, H, W)."""
    image = key.startswith("img")
    return to_tensor(np.atleast_3d(value).transpose(2, 0, 1)) if image else to_tensor(value[None].astype(np.int64))


class DefaultFormatBundle:
    """0.x: the image and the class map as tensors in DataContainers."""

    def __call__(self, results: Any) -> Any:
        for key in [key for key in ("img", "gt_semantic_seg") if key in results]:
            results[key] = DataContainer(_as_tensor(results[key], key), stack=True)
        return results


class Collect:
    """0.x: the values of some keys, and the facts of the image in `img_metas`."""

    def __init__(self, keys: Any, meta_keys: Any = FACTS_0X) -> None:
        self.keys, self.meta_keys = keys, meta_keys

    def __call__(self, results: Any) -> Any:
        facts = {key: results[key] for key in self.meta_keys if key in results}
        return {"img_metas": DataContainer(facts, cpu_only=True), **{key: results[key] for key in self.keys}}


class OfKeys:
    """0.x: the values of some keys in another form."""

    change: Any

    def __init__(self, keys: Any, order: Any = None) -> None:
        self.keys, self.order = keys, order

    def __call__(self, results: Any) -> Any:
        for key in self.keys:
            results[key] = self.change(results[key])
        return results


class ToDataContainer:
    """0.x: values as DataContainers, each by its own dict of `key` and options."""

    def __init__(self, fields: Any = ({"key": "img", "stack": True}, {"key": "gt_semantic_seg"})) -> None:
        self.fields = fields

    def __call__(self, results: Any) -> Any:
        for field in self.fields:
            options = {name: value for name, value in field.items() if name != "key"}
            results[field["key"]] = DataContainer(results[field["key"]], **options)
        return results


class PackSegInputs(BaseTransform):
    """`results` as {"inputs": image (C, H, W), "data_samples": SegDataSample}."""

    shows = ("meta_keys",)

    def __init__(self, meta_keys: Any = META_KEYS) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: Any) -> Any:
        sample = SegDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        for key in MAPS.values():
            if isinstance(results.get(key), np.ndarray):
                value = to_tensor(results[key])
                name, value = ("gt_sem_seg", value.long()) if key == "gt_seg_map" else (key, value)
                setattr(sample, name, PixelData(data=value))
        return {"inputs": to_tensor(np.atleast_3d(results["img"]).transpose(2, 0, 1)), "data_samples": sample}


@cache
def official_transform(name: str) -> Any:
    """The class that an official transform's name stands for, or None."""
    older, _, whole = name.rpartition(" ")
    bare = whole.rpartition(".")[2]
    if older:  # the class of 0.x
        newer, methods = official_transform(bare), METHODS.get(name, {})
        return type(bare, (newer,), {"older": True, **methods}) if issubclass(newer or object, BaseTransform) else newer
    own = globals().get(bare) or TABLE.get(bare)
    if inspect.isclass(own) and own.__module__ == __name__:
        return own
    found = ours.TRANSFORMS.hidden.get(bare)
    if found is None and bare in ours.TRANSFORMS and bare not in ours.TRANSFORMS.raw:
        found = ours.TRANSFORMS.get(bare)
    if found is None:
        return None
    return type(bare, (OfficialFace,), {"_ours": found, "__doc__": found.__doc__, **METHODS.get(found.__name__, {})})


ORIGINALS["transform"] = official_transform
# the strength of an augmentation at a level from 0 to 10, or at a random one, rounded to one digit
_MAX_LEVEL = 10
OF_KEYS = {
    "ToTensor": lambda self, value: to_tensor(value),
    "ImageToTensor": lambda self, value: _as_tensor(value, "img"),
    "Transpose": lambda self, value: value.transpose(self.order),
}
TABLE: dict[str, Any] = {
    **{name: type(name, (OfKeys,), {"change": change, "__module__": __name__}) for name, change in OF_KEYS.items()},
    "level_to_mag": lambda level, min_value, max_value: round(
        (np.random.rand() if level is None else level / _MAX_LEVEL) * (max_value - min_value) + min_value, 1
    ),
}
