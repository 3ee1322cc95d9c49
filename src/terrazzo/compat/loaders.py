"""Data sets around data sets, and their loaders, as scripts build them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from terrazzo.compat.registry import DATASETS


def build_dataset(cfg: Any, default_args: Any = None) -> Any:
    """A data set from its config."""
    return DATASETS.build(cfg, default_args=default_args)


class ConcatDataset(torch.utils.data.ConcatDataset):  # type: ignore[type-arg]
    """Data sets one after the other, with the first one's classes."""

    def __init__(self, datasets: Sequence[Any], **kwargs: Any) -> None:
        super().__init__([DATASETS.build(item) if isinstance(item, Mapping) else item for item in datasets])
        self.CLASSES, self.PALETTE = self.datasets[0].CLASSES, self.datasets[0].PALETTE  # type: ignore[attr-defined]
        self.metainfo = getattr(self.datasets[0], "metainfo", {})


class RepeatDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A data set several times over."""

    def __init__(self, dataset: Any, times: int) -> None:
        self.dataset, self.times = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset, times
        self.CLASSES, self.PALETTE = self.dataset.CLASSES, self.dataset.PALETTE

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        return self.dataset[idx % len(self.dataset)]


def build_dataloader(
    dataset: Any, samples_per_gpu: int = 1, workers_per_gpu: int = 0, num_gpus: int = 1, dist: bool = False,
    shuffle: bool = True, seed: int | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """A loader of a data set whose batches are lists."""
    from terrazzo.compat.tools import pseudo_collate

    return torch.utils.data.DataLoader(
        dataset, samples_per_gpu, shuffle=shuffle, num_workers=workers_per_gpu, collate_fn=pseudo_collate
    )
