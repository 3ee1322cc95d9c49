"""Functions about processes and devices, of mmcv's runner and mmengine's dist."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist


def get_dist_info() -> tuple[int, int]:
    """This process's rank, and the number of processes."""
    return get_rank(), get_world_size()


def is_distributed() -> bool:
    return torch_dist.is_available() and torch_dist.is_initialized()


def get_rank(group: Any = None) -> int:
    return torch_dist.get_rank(group) if is_distributed() else 0


def get_world_size(group: Any = None) -> int:
    return torch_dist.get_world_size(group) if is_distributed() else 1


def is_main_process(group: Any = None) -> bool:
    return get_rank(group) == 0


def master_only(func: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function in the first process only."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs) if is_main_process() else None

    return wrapper


def barrier(group: Any = None) -> None:
    if is_distributed():
        torch_dist.barrier(group)


def all_reduce(data: Any, op: str = "sum", group: Any = None) -> None:
    if is_distributed():
        torch_dist.all_reduce(data, group=group)
        if op == "mean":
            data /= get_world_size(group)


def reduce_mean(tensor: Any) -> Any:
    """The mean of a tensor over the processes."""
    tensor = tensor.clone()
    all_reduce(tensor, "mean")
    return tensor


def broadcast(data: Any, src: int = 0, group: Any = None) -> None:
    if is_distributed():
        torch_dist.broadcast(data, src, group)


def broadcast_object_list(data: list[Any], src: int = 0, group: Any = None) -> None:
    if is_distributed():
        torch_dist.broadcast_object_list(data, src, group)


def all_gather_object(data: Any, group: Any = None) -> list[Any]:
    """What each process hands over."""
    gathered = [data] * get_world_size(group)
    if is_distributed():
        torch_dist.all_gather_object(gathered, data, group)
    return gathered


def all_gather(data: Any, group: Any = None) -> list[Any]:
    return all_gather_object(data, group)


def collect_results(results: list[Any], size: int, device: str = "cpu", tmpdir: Any = None) -> list[Any] | None:
    """The results of all processes in the order of the data."""
    parts = all_gather_object(results)
    joined = [item for group in itertools.zip_longest(*parts) for item in group if item is not None]
    return joined[:size] if is_main_process() else None


collect_results_cpu = collect_results_gpu = collect_results


def init_dist(launcher: str, backend: str = "nccl", **kwargs: Any) -> None:
    """Nothing: terrazzo joins the process group itself."""


def sync_random_seed(*args: Any) -> int:
    return 0


def set_random_seed(seed: int, deterministic: bool = False, **kwargs: Any) -> int:
    """Seed Python, numpy and torch."""
    import random

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def get_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def setup_multi_processes(cfg: Any) -> None:
    """Nothing: terrazzo sets its processes up itself."""


set_multi_processing = setup_multi_processes
