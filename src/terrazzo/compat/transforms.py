"""Transforms of `results` dicts: users' ones in terrazzo's pipelines, and the official ones as bases."""

from __future__ import annotations

import inspect
import itertools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo import registry as ours
from terrazzo.arguments import check_arguments, placed, signature
from terrazzo.compat import image as images
from terrazzo.compat.config import ConfigDict
from terrazzo.compat.registry import BUILDS, ORIGINALS, TRANSFORMS, arguments_of
from terrazzo.errors import UserError
from terrazzo.sample import Sample, Target
from terrazzo.transforms.base import Step

SAME = {"gt_semantic_seg": "gt_seg_map"}  # one map under its names of both vocabularies
FACTS = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")  # that are handed on
NEWER = (*FACTS, "img_path", "seg_map_path", "reduce_zero_label")
OLDER = (*FACTS, "filename", "ori_filename", "img_norm_cfg")
_MAX_LEVEL = 10  # of mmdet's levels of augmentation
MAPS = {"label": "gt_seg_map", "edge": "gt_edge_map", "depth": "gt_depth_map"}


class Results(dict):  # type: ignore[type-arg]
    """The dict that transforms pass on; a map has one value under its names of both vocabularies."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return super().setdefault(SAME.get(key, key), default)

    def copy(self) -> Results:
        return Results(self)


def under_one_name(method: Any) -> Any:
    """A method of dicts whose key is the name of a map in either vocabulary."""
    return lambda self, key, *args: method(self, SAME.get(key, key), *args)


for _method in (dict.__getitem__, dict.__setitem__, dict.__contains__, dict.get, dict.pop):
    setattr(Results, _method.__name__, under_one_name(_method))


def to_results(sample: Sample, *, older: bool = False) -> Results:
    """A sample as a `results` dict, its image in BGR order; shapes are (height, width), in 0.x with the channels."""
    results = Results(sample.meta.get("results", {}))
    results.update({"img_path": str(sample.image_path or ""), "filename": str(sample.image_path or "")})
    results.update({"ori_filename": Path(str(sample.image_path or "")).name, "reduce_zero_label": False})
    results.update({"seg_map_path": None if sample.label_path is None else str(sample.label_path)})
    results.update({"img_info": {"filename": results["filename"], "ann": {"seg_map": results["seg_map_path"]}}})
    results.update({"ann_info": {"seg_map": results["seg_map_path"]}, "img_prefix": None, "seg_prefix": None})
    results.setdefault("img_fields", ["img"])
    results["seg_fields"] = [MAPS.get(name, f"gt_{name}") for name in sample.targets]
    results.setdefault("bbox_fields", [])
    if sample.image is not None:
        image = sample.image
        results["img"] = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 and image.shape[2] == 3 else image
        shape = image.shape
        results.update({"img_shape": shape, "pad_shape": shape})
        results.setdefault("ori_shape", (*(sample.original_size or shape[:2]), *shape[2:]))
        if not older:
            cut = slice(1, None) if image.ndim == 4 else slice(2)  # volumes have their channels first
            results.update({name: results[name][cut] for name in ("img_shape", "pad_shape", "ori_shape")})
    for key, value in {"scale_factor": 1.0, "flip": bool(sample.meta.get("flip")), "flip_direction": None}.items():
        results.setdefault(key, value)
    results.setdefault(
        "img_norm_cfg", {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32), "to_rgb": False}
    )
    for name, target in sample.targets.items():
        results[MAPS.get(name, f"gt_{name}")] = target.array
    return results


def to_sample(results: Mapping[str, Any], sample: Sample) -> Sample:
    """The sample that a `results` dict describes; what is no image and no map is kept in its meta."""
    known = Results(results)
    image = known.get("img")
    if image is not None:
        sample.image = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 and image.shape[2] == 3 else image
    names = {**{value: key for key, value in MAPS.items()}, **{f"gt_{name}": name for name in sample.targets}}
    for key in dict.fromkeys([*MAPS.values(), *known.get("seg_fields", [])]):
        if isinstance(known.get(key), np.ndarray):
            name = names.get(SAME.get(key, key), SAME.get(key, key).removeprefix("gt_"))
            old = sample.targets.get(name)
            array = known[key]
            if old is not None and array.dtype != old.array.dtype and old.array.dtype == np.uint8:
                array = array.astype(np.uint8)
            sample.targets[name] = Target(array, *([old.interpolation, old.fill] if old else []))  # type: ignore[arg-type]
    kept = {key: value for key, value in known.items() if key != "img" and key not in MAPS.values()}
    sample.meta = {**sample.meta, "results": kept, "flip": bool(known.get("flip"))}
    return sample


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of Python, numpy and torch seeded from ours, and as before afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(rng.integers(2**31))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class UserStep(Step):
    """A user's transform of dicts as a step of terrazzo's pipeline."""

    random = moves_pixels = True

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        packing = ("Format", "Collect", "Pack", "ToTensor")
        self.packs = type(inner).__name__.startswith(packing) or type(inner).__name__.endswith(
            ("FormatBundle", "Inputs")
        )
        source = inspect.getsource(type(inner)) if inspect.isclass(type(inner)) else ""
        if "imread" in source or "imfrombytes" in source or type(inner).__name__.startswith("LoadImage"):
            self.reads = "image"
        elif type(inner).__name__.startswith("LoadAnn"):
            self.reads = "label"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
        if self.packs:
            return sample
        with seeded(rng):
            for _ in range(10):
                older = not isinstance(self.inner, BaseTransform)
                results = self.inner(to_results(sample, older=older))
                if results is not None:
                    return to_sample(results, sample)
        raise UserError(f"{type(self.inner).__name__} gave None for {sample.image_path} ten times")

    def __repr__(self) -> str:
        return repr(self.inner)


def build_user_transform(cls: Any, spec: Mapping[str, Any], where: str, **extra: Any) -> UserStep:
    """A user's transform from its section as written."""
    options = ConfigDict({key: value for key, value in spec.items() if key != "type"})
    with placed(spec.get("type"), where, spec):
        return UserStep(cls(**options))


BUILDS["transform"] = build_user_transform


class BaseTransform:
    """A transform of `results` dicts."""

    shows: tuple[str, ...] = ()  # the attributes that name it

    def __call__(self, results: Any) -> Any:
        return self.transform(results)

    def transform(self, results: Any) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.shows)})"


class Compose:
    """Transforms one after the other, until one gives None."""

    def __init__(self, transforms: Any) -> None:
        self.transforms = [TRANSFORMS.build(item) if isinstance(item, Mapping) else item for item in transforms or []]

    def __call__(self, data: Any) -> Any:
        for transform in self.transforms:
            data = transform(data)
            if data is None:
                return None
        return data

    transform = __call__


class TestTimeAug(BaseTransform):
    """Every combination of transforms, one from each group -> the values of all views as lists."""

    def __init__(self, transforms: Any) -> None:
        if not all(isinstance(group, (list, tuple)) for group in transforms):
            raise TypeError("each of the groups of TestTimeAug is a list of transforms")
        self.subroutines = [Compose(chain) for chain in itertools.product(*transforms)]

    def transform(self, results: Any) -> Any:
        made = [view(results.copy()) for view in self.subroutines]
        return {key: [view[key] for view in made] for key in made[0]}


class OfficialFace(BaseTransform):
    """One of terrazzo's transforms, called with a `results` dict."""

    _ours: Any
    backend_args: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = signature(self._ours).names
        options = dict(zip(names, args, strict=False)) | kwargs
        for key in ("scale", "img_scale"):
            if key in options and "scale" in names:
                options["scale"] = options.pop(key)
        kept = {key: value for key, value in options.items() if key in names}
        with arguments_of(self._ours.__name__):
            check_arguments(self._ours, kept, self._ours.__name__, "pipeline")
            self._step = self._ours(**kept)
        for key in names:
            if hasattr(self._step, key):
                vars(self).setdefault(key, getattr(self._step, key))
        vars(self).update(options)
        self.shows = (*names, "backend_args") if self._ours.reads else names

    def transform(self, results: Any) -> Any:
        sample = to_sample(results, Sample(meta={}))
        sample.image_path = Path(results["img_path"]) if results.get("img_path") else None
        sample.label_path = Path(results["seg_map_path"]) if results.get("seg_map_path") else None
        with arguments_of(self._ours.__name__):
            changed = self._step(sample, np.random.default_rng(np.random.randint(2**31)))
        before = np.shape(results.get("img"))
        made = {key: value for key, value in to_results(changed).items() if value is not None}
        if "img" in made and before[:2] == made["img"].shape[:2]:  # of the same size: what is known of it stays
            made = {key: value for key, value in made.items() if key not in FACTS or key not in results}
        for older, newer in SAME.items():  # a plain dict knows its maps by their own names
            if newer in made and older in results and type(results) is dict:
                made[older] = made.pop(newer)
        results.update(made)
        return results


class LoadImageFromFile(BaseTransform):
    """Read the image of `results` into `img`, in BGR order."""

    shows = ("ignore_empty", "to_float32", "color_type", "imdecode_backend", "backend_args")
    ignore_empty = False

    def __init__(
        self, to_float32: bool = False, color_type: str = "color", imdecode_backend: str = "cv2", **kwargs: Any
    ) -> None:
        self.to_float32, self.color_type, self.imdecode_backend = to_float32, color_type, imdecode_backend
        self.file_client_args = self.backend_args = None
        self.file_client = None

    def transform(self, results: Any) -> Any:
        path = results.get("img_path") or Path(results.get("img_prefix") or "", results["img_info"]["filename"])
        image = images.imread(path, self.color_type)
        image = image.astype(np.float32) if self.to_float32 else image
        results.update({"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]})
        results.update({"img_path": str(path), "filename": str(path), "pad_shape": image.shape, "scale_factor": 1.0})
        results.update({"ori_filename": Path(path).name, "flip": False, "img_fields": ["img"]})
        return results


class LoadImageFromNDArray(LoadImageFromFile):
    """Take the image that `results["img"]` holds."""

    def transform(self, results: Any) -> Any:
        image = results["img"].astype(np.float32) if self.to_float32 else results["img"]
        shape = image.shape[:2]
        results.update({"img": image, "img_path": None, "img_shape": shape, "ori_shape": shape})
        return results


class Normalize(BaseTransform):
    """Subtract the mean and divide by the deviation, in RGB order with `to_rgb`."""

    shows = ("mean", "std", "to_rgb")

    def __init__(self, mean: Any, std: Any, to_rgb: bool = True) -> None:
        self.mean, self.std, self.to_rgb = np.float32(mean), np.float32(std), to_rgb

    def transform(self, results: Any) -> Any:
        results["img"] = images.imnormalize(results["img"], self.mean, self.std, self.to_rgb)
        results["img_norm_cfg"] = {"mean": self.mean, "std": self.std, "to_rgb": self.to_rgb}
        return results


class LoadAnnotations(BaseTransform):
    """Read the class map of `results` into `gt_seg_map`."""

    shows = ("reduce_zero_label", "imdecode_backend", "backend_args")

    def __init__(self, reduce_zero_label: bool | None = None, imdecode_backend: str = "pillow", **kwargs: Any) -> None:
        self.reduce_zero_label, self.imdecode_backend = reduce_zero_label, imdecode_backend
        self.backend_args = self.file_client_args = self.file_client = None

    def _load_seg_map(self, results: Any) -> None:
        """1.x: overridden by those who read other files."""
        path = results.get("seg_map_path")
        if not path:
            path = Path(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        label = images.imfrombytes(Path(path).read_bytes(), "unchanged", backend=self.imdecode_backend).squeeze()
        label = label.astype(np.uint8)
        if self.reduce_zero_label is None:
            self.reduce_zero_label = results.get("reduce_zero_label")
        if self.reduce_zero_label:
            label = np.where((label == 0) | (label == 255), 255, label - 1).astype(np.uint8)
        mapped = label.copy()
        for old, new in (results.get("label_map") or {}).items():
            mapped[label == old] = new
        results["gt_seg_map"] = mapped
        results.setdefault("seg_fields", []).append("gt_seg_map")

    def transform(self, results: Any) -> Any:
        self._load_seg_map(results)
        return results


def level_to_mag(level: int | None, min_mag: float, max_mag: float) -> float:
    """The strength of an augmentation at a level of ten, or a random one."""
    share = np.random.rand() if level is None else level / _MAX_LEVEL
    return round(share * (max_mag - min_mag) + min_mag, 1)


@cache
def official_transform(name: str) -> Any:
    """The class that an official transform's name stands for, or None."""
    bare = name.rpartition(".")[2]
    from terrazzo.compat import formatting

    own = globals().get(bare) or vars(formatting).get(bare)
    if inspect.isclass(own) and (
        issubclass(own, BaseTransform) or own.__module__ == formatting.__name__ or bare == "Compose"
    ):
        return own
    found = ours.TRANSFORMS.hidden.get(bare)
    if found is None and bare in ours.TRANSFORMS and bare not in ours.TRANSFORMS.raw:
        found = ours.TRANSFORMS.get(bare)
    return None if found is None else type(bare, (OfficialFace,), {"_ours": found, "__doc__": found.__doc__})


ORIGINALS["transform"] = official_transform
