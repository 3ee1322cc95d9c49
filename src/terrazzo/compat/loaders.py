"""Data sets around data sets, and their loaders, as scripts build them."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Mapping
from typing import Any

import torch

from terrazzo.compat.registry import DATASETS, TRANSFORMS


def build_dataset(cfg: Any, default_args: Any = None) -> Any:
    """A data set from its config."""
    return DATASETS.build(cfg, default_args=default_args)


def built_dataset(dataset: Any) -> Any:
    return DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset


class WrappedDataset(torch.utils.data.Dataset):
    """A data set around another, whose facts are its own too."""

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        self.dataset = built_dataset(dataset)
        self.metainfo = getattr(self.dataset, "metainfo", {})
        self.CLASSES, self.PALETTE = (getattr(self.dataset, name, None) for name in ("CLASSES", "PALETTE"))

    def full_init(self) -> None:
        """Nothing: the inner data set has done it."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


class RepeatDataset(WrappedDataset):
    """A data set, several times over."""

    def __init__(self, dataset: Any, times: int, lazy_init: bool = False) -> None:
        super().__init__(dataset)
        self.times = times

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


class ConcatDataset(WrappedDataset):
    """Data sets one after the other; the facts are the first one's."""

    def __init__(self, datasets: Any, separate_eval: bool = True, **_: Any) -> None:
        self.datasets = [built_dataset(item) for item in datasets]
        super().__init__(self.datasets[0])
        lengths = [*map(len, self.datasets)]
        self.cumulative_sizes = [sum(lengths[: index + 1]) for index in range(len(lengths))]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        index = index % len(self)
        part = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[part][index - (self.cumulative_sizes[part - 1] if part else 0)]


class MultiImageMixDataset(WrappedDataset):
    """A data set whose transforms may ask for further images (`get_indices`), as `mix_results`."""

    def __init__(self, dataset: Any, pipeline: Any, skip_type_keys: Any = None, lazy_init: bool = False) -> None:
        super().__init__(dataset)
        self._skip_type_keys = skip_type_keys
        self.pipeline_types = [spec["type"] for spec in pipeline]
        self.pipeline = [TRANSFORMS.build(spec) for spec in pipeline]

    def __getitem__(self, index: int) -> Any:
        results = copy.deepcopy(self.dataset[index])
        for kind, transform in zip(self.pipeline_types, self.pipeline, strict=True):
            if kind in (self._skip_type_keys or ()):
                continue
            ask = getattr(transform, "get_indices", None) or getattr(transform, "get_indexes", None)
            if ask is not None:
                found = ask(self.dataset)
                found = found if isinstance(found, (list, tuple)) else [found]
                results["mix_results"] = [copy.deepcopy(self.dataset[position]) for position in found]
            results = transform(results)
            results.pop("mix_results", None)
        return results


def build_dataloader(
    dataset: Any, samples_per_gpu: int = 1, workers_per_gpu: int = 0, num_gpus: int = 1, dist: bool = False,
    shuffle: bool = True, seed: int | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """A loader of a data set whose batches are lists."""
    from terrazzo.compat.tools import pseudo_collate

    return torch.utils.data.DataLoader(
        dataset, samples_per_gpu, shuffle=shuffle, num_workers=workers_per_gpu, collate_fn=pseudo_collate
    )
