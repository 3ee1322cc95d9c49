"""Samples as the `results` dicts of MMSegmentation's transforms, and back."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.sample import Sample, Target

SAME = {"gt_semantic_seg": "gt_seg_map"}  # one map under its names of both vocabularies
FACTS = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")  # that are handed on
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


def to_results(sample: Sample, *, older: bool = False) -> Results:
    """A sample as a `results` dict, its image in BGR order; shapes are (height, width), in 0.x with the channels."""
    results, path = Results(sample.meta.get("results", {})), str(sample.image_path or "")
    label = None if sample.label_path is None else str(sample.label_path)
    maps = {MAPS.get(name, f"gt_{name}"): target.array for name, target in sample.targets.items()}
    results.update(
        img_path=path, filename=path, ori_filename=Path(path).name, seg_map_path=label, reduce_zero_label=False,
        img_info={"filename": path, "ann": {"seg_map": label}}, ann_info={"seg_map": label}, img_prefix=None,
        seg_prefix=None, seg_fields=[*maps], **maps,
    )  # fmt: skip
    if (image := sample.image) is not None:
        ori_shape = results.get("ori_shape", (*(sample.original_size or image.shape[:2]), *image.shape[2:]))
        cut = slice(None) if older else slice(1, None) if image.ndim == 4 else slice(2)  # volumes: channels first
        results.update(img=swapped(image), img_shape=image.shape[cut], pad_shape=image.shape[cut])
        results["ori_shape"] = ori_shape[cut]
    norm = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32), "to_rgb": False}
    defaults = {"scale_factor": 1.0, "flip": bool(sample.meta.get("flip")), "flip_direction": None}
    return Results({**defaults, "img_fields": ["img"], "bbox_fields": [], "img_norm_cfg": norm, **results})


def to_sample(results: Mapping[str, Any], sample: Sample) -> Sample:
    """The sample that a `results` dict describes; what is no image and no map is kept in its meta."""
    known = Results(results)
    if (image := known.get("img")) is not None:
        sample.image = swapped(image)
    names = {**{value: key for key, value in MAPS.items()}, **{f"gt_{name}": name for name in sample.targets}}
    for key in dict.fromkeys(SAME.get(key, key) for key in [*MAPS.values(), *known.get("seg_fields", [])]):
        if isinstance(array := known.get(key), np.ndarray):
            name = names.get(key, key.removeprefix("gt_"))
            old = sample.targets.get(name)
            if old is not None and array.dtype != old.array.dtype and old.array.dtype == np.uint8:
                array = array.astype(np.uint8)
            sample.targets[name] = Target(array, *([old.interpolation, old.fill] if old else []))  # type: ignore[arg-type]
    kept = {key: value for key, value in known.items() if key != "img" and key not in MAPS.values()}
    sample.meta = {**sample.meta, "results": kept, "flip": bool(known.get("flip"))}
    return sample


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of Python, numpy and torch seeded from ours, and as before afterwards."""
    states, seed = (random.getstate(), np.random.get_state(), torch.get_rng_state()), int(rng.integers(2**31))
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
