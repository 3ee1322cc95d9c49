"""`SegDataSample` and `results` dicts: an image's facts and maps as MMSegmentation passes them."""

import copy
import functools
import itertools
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from terrazzo.arguments import signature
from terrazzo.models.preprocess import Preprocess
from terrazzo.sample import Sample, Target

# names of types in annotations
TABLE: dict[str, Any] = {
    **dict.fromkeys(["SampleList", "OptSampleList", "TensorList", "InstanceList", "OptInstanceList"], list),
    **dict.fromkeys(
        ["ConfigType", "OptConfigType", "MultiConfig", "OptMultiConfig", "ForwardResults", "TensorDict"], dict
    ),
    **dict.fromkeys(("IndexType", "DATA_BATCH", "ModelType"), object),
    "mmengine.stack_batch": lambda tensor_list, pad_size_divisor=1, pad_value=0: stack_batch(
        tensor_list, None, None, pad_size_divisor, pad_value
    )[0],
}


def copied(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing with the facts of an image; sizes in a graph that is being exported cannot change."""
    return dict(facts) if torch.compiler.is_exporting() else copy.deepcopy(dict(facts))


class BaseDataElement:
    """Values under names, apart from the facts of the image in `metainfo`; all of them are attributes."""

    def __init__(self, *, metainfo: Any = None, **kwargs: Any) -> None:
        vars(self).update(_data={}, _meta=copied(metainfo or {}))
        self.set_data(kwargs)

    def set_metainfo(self, metainfo: Any) -> None:
        self._meta.update(copied(metainfo))

    def set_data(self, data: Any) -> None:
        for name, value in data.items():
            setattr(self, name, value)

    def new(self, *, metainfo: Any = None, **kwargs: Any) -> Any:
        made = type(self)(metainfo=self.metainfo if metainfo is None else metainfo)
        made.set_data(kwargs or dict(self.items()))
        return made

    clone = copy.deepcopy
    metainfo = property(lambda self: copied(self._meta))
    metainfo_keys, metainfo_items = (lambda self: [*self._meta]), (lambda self: [*self._meta.items()])

    def all_items(self) -> Any:
        return {**self._meta, **self._data}.items()

    def get(self, key: str, default: Any = None) -> Any:
        return self._data.get(key, self._meta.get(key, default))

    def __getattr__(self, name: str) -> Any:
        if name in ("keys", "values", "items", "pop"):
            return getattr(self._data, name)
        found = {} if name.startswith("__") or name in ("_data", "_meta") else {**self._meta, **self._data}
        if name not in found:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return found[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            self._data[name.removeprefix("_")] = value

    def set_field(self, value: Any, name: str, dtype: Any = None, field_type: str = "data") -> None:
        (self._meta if field_type == "metainfo" else self._data)[name.removeprefix("_")] = value

    def __delattr__(self, name: str) -> None:
        (self._data if name in self._data else self._meta).pop(name)

    def __contains__(self, name: str) -> bool:
        return name in self._data or name in self._meta

    def _apply(self, method: str, *args: Any, **kwargs: Any) -> Any:
        made = self.new()
        for name, value in self.items():
            if isinstance(value, (Tensor, BaseDataElement)):
                made._data[name] = getattr(value, method)(*args, **kwargs)
        return made

    to, cpu = functools.partialmethod(_apply, "to"), functools.partialmethod(_apply, "cpu")
    cuda, numpy = functools.partialmethod(_apply, "cuda"), functools.partialmethod(_apply, "numpy")
    detach = functools.partialmethod(_apply, "detach")

    def to_dict(self) -> dict[str, Any]:
        return {name: item.to_dict() if isinstance(item, BaseDataElement) else item for name, item in self.all_items()}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.all_items())})>"


class InstanceData(BaseDataElement):
    """Values of several instances, of one length; an index chooses instances."""

    def __len__(self) -> int:
        return len(next(iter(self._data.values()), ()))

    def __getitem__(self, item: Any) -> Any:
        index = slice(item, item + 1) if isinstance(item, int) else item
        return type(self)(metainfo=self.metainfo, **{name: value[index] for name, value in self.items()})

    @staticmethod
    def cat(instances_list: Any) -> Any:
        """The instances of several, with the first one's facts."""
        first, joined = instances_list[0], dict[str, Any]()
        joining: dict[type, Any] = {Tensor: torch.cat, np.ndarray: np.concatenate}
        for name, value in first.items():
            values = [item.get(name) for item in instances_list]
            joined[name] = joining.get(type(value), lambda lists: [*itertools.chain(*lists)])(values)
        return type(first)(metainfo=first.metainfo, **joined)


class LabelData(BaseDataElement):
    """Labels of an image: their numbers, or ones at the places of these."""

    onehot_to_label = staticmethod(lambda onehot: onehot.nonzero().squeeze(-1))
    label_to_onehot = staticmethod(lambda label, num_classes: label.new_zeros(num_classes).index_fill(0, label, 1))


class PixelData(InstanceData):
    """Maps of one size; a map without channels gets one, and an index cuts all of them."""

    shape = property(lambda self: next((tuple(value.shape[-2:]) for value in self._data.values()), None))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Tensor, np.ndarray)):
            value = value[None] if value.ndim == 2 else value
            if value.ndim != 3 or self.shape not in (None, tuple(value.shape[-2:])):
                raise AssertionError(f"a map of shape {tuple(value.shape)} is not (channels, *{self.shape})")
        super().__setattr__(name, value)

    def __getitem__(self, item: Any) -> Any:
        return super().__getitem__((slice(None), *(slice(i, i + 1) if isinstance(i, int) else i for i in item)))


class SegDataSample(BaseDataElement):
    """`gt_sem_seg`, `pred_sem_seg` and `seg_logits` (PixelData) of an image."""


class DataContainer:
    """A value in the form that 0.x collated: `data` holds it."""

    def __init__(self, data: Any, stack: bool = False, **kwargs: Any) -> None:
        self.data, self.stack = data, stack
        vars(self).update({"padding_value": 0, "cpu_only": False, **kwargs})


class SegDataPreProcessor(Preprocess):
    """The product's normalisation, also called with `{"inputs": images, "data_samples": ...}` in BGR order."""

    cast_data = staticmethod(lambda data: data)

    def __init__(self, mean: Any = None, std: Any = None, **kwargs: Any) -> None:
        options, takes = {"bgr_to_rgb": False, **kwargs, "mean": mean, "std": std}, signature(Preprocess).names
        assert (mean is None) == (std is None), "mean and std are given together"
        super().__init__(**{key: value for key, value in options.items() if key in takes})

    def forward(self, images: Any, training: bool = False) -> Any:
        if isinstance(images, Tensor):
            return super().forward(images)
        if "inputs" not in images:
            return images
        samples, forward = images.get("data_samples"), super().forward
        inputs = [forward(x[None].flip(1) if len(x) == 3 else x[None])[0] for x in images["inputs"]]
        size, divisor = (self.size, self.size_divisor) if training else (self.test_size, self.test_divisor)
        stacked, samples = stack_batch(inputs, samples, size, divisor, self.pad_val, self.seg_pad_val)
        return {"inputs": stacked, "data_samples": samples}


def stack_batch(
    inputs: Any, data_samples: Any = None, size: Any = None, size_divisor: Any = None, pad_val: float = 0,
    seg_pad_val: float = 255,
) -> tuple[Tensor, Any]:  # fmt: skip
    assert isinstance(inputs, list) and all(x.ndim == 3 for x in inputs)
    height, width = size or (max(x.shape[axis] for x in inputs) for axis in (-2, -1))
    if not size and size_divisor and size_divisor > 1:
        height, width = (-(-side // size_divisor) * size_divisor for side in (height, width))
    images = []
    for image, sample in zip(inputs, data_samples or [SegDataSample() for _ in inputs], strict=True):
        pad = (0, max(width - image.shape[-1], 0), 0, max(height - image.shape[-2], 0))
        images.append(F.pad(image, pad, value=pad_val))
        for name in ("gt_sem_seg", "gt_edge_map", "gt_depth_map"):
            if name in sample:
                setattr(sample, name, PixelData(data=F.pad(sample.get(name).data, pad, value=seg_pad_val)))
        facts = {"img_shape": tuple(image.shape[-2:]), "padding_size": pad, "img_padding_size": pad}
        sample.set_metainfo(facts | {"pad_shape": tuple(images[-1].shape[-2:])})
    return torch.stack(images), data_samples


def add_prefix(inputs: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in inputs.items()}


def meta_of(height: int, width: int) -> dict[str, Any]:
    """The facts of an image that has not been changed."""
    shape = (height, width, 3)
    return {
        "ori_shape": shape, "img_shape": shape, "pad_shape": shape, "scale_factor": 1.0, "flip": False,
        "filename": "", "ori_filename": "", "img_path": "", "flip_direction": "horizontal",
        "img_norm_cfg": {"mean": np.zeros(3), "std": np.ones(3), "to_rgb": True},
    }  # fmt: skip


def samples_of(images: Tensor, labels: Tensor | None = None, **targets: Tensor) -> list[SegDataSample]:
    """A SegDataSample for each image of a batch, with its labels (N, H, W) and further maps."""
    size = tuple(images.shape[-2:])
    made = [SegDataSample(metainfo=meta_of(*size) | {"ori_shape": size, "img_shape": size}) for _ in images]
    for name, maps in {"sem_seg": labels, **targets}.items():
        for index, sample in enumerate(made if maps is not None else []):
            key = f"gt_{name}_map" if name in ("edge", "depth") else f"gt_{name}"
            setattr(sample, key, PixelData(data=maps[index]))  # type: ignore[index]
    return made


def labels_of(samples: Any) -> Tensor:
    """The label maps (N, 1, H, W) of SegDataSamples."""
    return torch.stack([sample.gt_sem_seg.data for sample in samples])


def targets_of(samples: Any) -> dict[str, Tensor]:
    """The further maps (N, H, W) of SegDataSamples by the names that losses know them by."""
    keys = {name: key for name, key in MAPS.items() if name != "label" and key in samples[0]}
    return {name: torch.stack([sample.get(key).data.squeeze(0) for sample in samples]) for name, key in keys.items()}


DataSample, BaseDataPreprocessor, ImgDataPreprocessor = SegDataSample, SegDataPreProcessor, SegDataPreProcessor

# Samples as `results` dicts, and back

SAME = {"gt_semantic_seg": "gt_seg_map"}  # one map under its names of both vocabularies
FACTS = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")  # that are handed on
# and what transforms note in `Sample.meta`
NOTED = (
    "flip", "flip_direction", "swap_seg_labels", "scale", "scale_factor", "keep_ratio", "pad_fixed_size",
    "pad_size_divisor",
)  # fmt: skip
COUNT = "img_count"  # of images whose bands follow each other in a sample's one
MAPS = {"label": "gt_seg_map", "edge": "gt_edge_map", "depth": "gt_depth_map"}


class Results(dict):  # type: ignore[type-arg]
    """The dict that transforms pass on; a map has one value under its names of both vocabularies."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def copy(self) -> "Results":
        return Results(self)


for _method in (dict.__getitem__, dict.__setitem__, dict.__contains__, dict.get, dict.pop, dict.setdefault):
    _named = lambda self, key, *args, method=_method: method(self, SAME.get(key, key), *args)  # noqa: E731
    setattr(Results, _method.__name__, _named)


def swapped(image: np.ndarray) -> np.ndarray:
    """An image in RGB order from one in BGR order, and back."""
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 and image.shape[2] == 3 else image


def to_results(sample: Sample, *, older: bool = False, **told: Any) -> Results:
    """A sample as a `results` dict with what else is `told`, its image in BGR order.

    Shapes are (height, width), in 0.x with the channels.
    """
    results: Any = Results(sample.meta.get("results", {}))
    path = str(sample.image_path or "")
    paths = results.get("img_path")  # several of one item, such as two dates
    label = None if sample.label_path is None else str(sample.label_path)
    maps = {MAPS.get(name, f"gt_{name}"): target.array for name, target in sample.targets.items()}
    results.update(
        img_path=path, filename=path, ori_filename=Path(path).name, seg_map_path=label, reduce_zero_label=False,
        img_info={"filename": path, "ann": {"seg_map": label}}, ann_info={"seg_map": label}, img_prefix=None,
        seg_prefix=None, seg_fields=[*maps], **maps,
    )  # fmt: skip
    if isinstance(paths, (list, tuple)):
        results["img_path"] = paths
    if (image := sample.image) is not None:
        own_size = sample.original_size if any(sample.original_size) else image.shape[:2]
        ori_shape = results.get("ori_shape", (*own_size, *image.shape[2:]))
        cut = slice(None) if older else slice(1, None) if image.ndim == 4 else slice(2)  # volumes: channels first
        pad_shape = image.shape[cut] if image.ndim == 4 else image.shape
        results.update(img=swapped(image), img_shape=image.shape[cut], pad_shape=pad_shape)
        results["ori_shape"] = ori_shape[cut]
        if (count := results.get(COUNT, 1)) > 1:
            results["img"] = [swapped(one) for one in np.split(image, count, axis=2)]
    norm = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32), "to_rgb": False}
    noted = {"scale_factor": 1.0, **({} if older else {"flip": False}), **results}
    noted |= {key: sample.meta[key] for key in NOTED if key in sample.meta}
    if older and "flip" in noted:
        noted["flip_direction"] = noted.get("flip_direction") or "horizontal"
    if older and isinstance(noted["scale_factor"], tuple):
        noted["scale_factor"] = np.array(noted["scale_factor"] * 2, np.float32)
    return Results({"img_fields": ["img"], "bbox_fields": [], "img_norm_cfg": norm, **noted, **told})


def to_sample(results: Mapping[str, Any], sample: Sample) -> Sample:
    """The sample that a `results` dict describes; what is no image and no map is kept in its meta."""
    known = Results(results)
    if isinstance(image := known.get("img"), (list, tuple)):  # the bands of all
        sample.image, known[COUNT] = np.concatenate([swapped(one) for one in image], axis=2), len(image)
    elif image is not None:
        sample.image = swapped(image)
    if sample.image is not None and not any(sample.original_size):  # read by a user's step
        sample.original_size = tuple((known.get("ori_shape") or sample.image.shape)[:2])
    names = {**{value: key for key, value in MAPS.items()}, **{f"gt_{name}": name for name in sample.targets}}
    for key in dict.fromkeys(SAME.get(key, key) for key in [*MAPS.values(), *known.get("seg_fields", [])]):
        if isinstance(array := known.get(key), np.ndarray):
            name = names.get(key, key.removeprefix("gt_"))
            old = sample.targets.get(name)
            if old is not None and array.dtype != old.array.dtype and old.array.dtype == np.uint8:
                array = array.astype(np.uint8)
            sample.targets[name] = Target(array, *([old.interpolation, old.fill] if old else []))  # type: ignore[arg-type]
    kept = {key: value for key, value in known.items() if key != "img" and key not in MAPS.values()}
    noted = {key: known[key] for key in NOTED if key in known}
    sample.meta = {**sample.meta, "results": kept, **noted}
    return sample


GLOBAL = threading.RLock()  # of the generators: files are checked in several threads
GENERATORS: Any = (
    (random.seed, random.getstate, random.setstate),
    (np.random.seed, np.random.get_state, np.random.set_state),
    (torch.manual_seed, torch.get_rng_state, torch.set_rng_state),
)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of Python, numpy and torch seeded from ours, and as before afterwards."""
    with GLOBAL:
        states, seed = [state() for _, state, _ in GENERATORS], int(rng.integers(2**31))
        for start, _, _ in GENERATORS:
            start(seed)
        try:
            yield
        finally:
            for (_, _, back), state in zip(GENERATORS, states, strict=True):
                back(state)
