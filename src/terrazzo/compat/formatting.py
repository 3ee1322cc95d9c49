"""Transforms that pack `results` for a batch, of both vocabularies."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from terrazzo.compat.structures import DataContainer, PixelData, SegDataSample
from terrazzo.compat.transforms import MAPS, NEWER, OLDER, BaseTransform


def to_tensor(data: Any) -> torch.Tensor:
    """An array, a sequence or a number as a tensor."""
    if isinstance(data, torch.Tensor):
        return data
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(data))
    return torch.as_tensor([data] if isinstance(data, (int, float)) else data)


class PackSegInputs(BaseTransform):
    """`results` as {"inputs": image (C, H, W), "data_samples": SegDataSample}."""

    shows = ("meta_keys",)

    def __init__(self, meta_keys: Any = NEWER) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: Any) -> Any:
        image = np.atleast_3d(results["img"]).transpose(2, 0, 1)
        sample = SegDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        for key in MAPS.values():
            if isinstance(results.get(key), np.ndarray):
                value = to_tensor(results[key])
                if value.ndim != 2:
                    warnings.warn(f"{key} is a map of {value.ndim} dimensions, not (height, width)")
                name, value = ("gt_sem_seg", value.long()) if key == "gt_seg_map" else (key, value)
                setattr(sample, name, PixelData(data=value[None] if value.ndim == 2 else value))
        return {"inputs": to_tensor(image), "data_samples": sample}


class DefaultFormatBundle:
    """0.x: the image and the class map of `results` as tensors in containers."""

    def __call__(self, results: Any) -> Any:
        for key in ("img", *results.get("seg_fields", ["gt_semantic_seg"])):
            if isinstance(value := results.get(key), np.ndarray):
                array = np.atleast_3d(value).transpose(2, 0, 1) if key == "img" else value[None].astype(np.int64)
                results[key] = DataContainer(to_tensor(array), stack=True)
        return results


class ToDataContainer:
    """0.x: values of `results` in containers, by `fields` of (key, options)."""

    def __init__(self, fields: Any = ({"key": "img", "stack": True}, {"key": "gt_semantic_seg"})) -> None:
        self.fields = fields

    def __call__(self, results: Any) -> Any:
        for field in self.fields:
            options = dict(field)
            key = options.pop("key")
            results[key] = DataContainer(results[key], **options)
        return results


class ToTensor:
    """Values of `results` as tensors."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys

    def __call__(self, results: Any) -> Any:
        for key in self.keys:
            results[key] = to_tensor(results[key])
        return results


class ImageToTensor(ToTensor):
    """Images of `results` as tensors (C, H, W)."""

    def __call__(self, results: Any) -> Any:
        for key in self.keys:
            results[key] = to_tensor(np.atleast_3d(results[key]).transpose(2, 0, 1))
        return results


class Collect:
    """0.x: the `keys` of `results`, and facts of the image in `img_metas`."""

    def __init__(self, keys: Any, meta_keys: Any = OLDER) -> None:
        self.keys, self.meta_keys = keys, meta_keys

    def __call__(self, results: Any) -> Any:
        facts = {key: results[key] for key in self.meta_keys if key in results}
        return {"img_metas": DataContainer(facts, cpu_only=True), **{key: results[key] for key in self.keys}}
