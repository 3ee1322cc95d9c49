"""The choice between torch's algorithms: the fastest ones, or those with reproducible results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from terrazzo.config.experiment import RunSettings


@contextmanager
def chosen_algorithms(settings: RunSettings) -> Iterator[None]:
    """Let torch use the algorithms of the settings inside; most choices concern GPUs only."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    searched = cudnn.benchmark
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first product
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = settings.cudnn_benchmark and not settings.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = searched
