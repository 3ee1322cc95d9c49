"""Data sets around data sets, and their loaders, as scripts build them."""

from __future__ import annotations

from typing import Any

import torch

from terrazzo.compat.registry import DATASETS


def build_dataset(cfg: Any, default_args: Any = None) -> Any:
    """A data set from its config."""
    return DATASETS.build(cfg, default_args=default_args)


def build_dataloader(
    dataset: Any, samples_per_gpu: int = 1, workers_per_gpu: int = 0, num_gpus: int = 1, dist: bool = False,
    shuffle: bool = True, seed: int | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """A loader of a data set whose batches are lists."""
    from terrazzo.compat.tools import pseudo_collate

    return torch.utils.data.DataLoader(
        dataset, samples_per_gpu, shuffle=shuffle, num_workers=workers_per_gpu, collate_fn=pseudo_collate
    )
