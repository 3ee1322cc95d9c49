"""Processes, devices, loggers and values that parts of a program share, of mmcv's runner and mmengine."""

from __future__ import annotations

import functools
import itertools
import logging
import random
from collections.abc import Callable
from contextlib import nullcontext
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


def together(operation: str) -> Callable[..., None]:
    """A function of torch.distributed that does nothing in a single process."""

    def call(*args: Any, **kwargs: Any) -> None:
        if is_distributed():
            getattr(torch_dist, operation)(*args, **kwargs)

    return call


barrier, broadcast = together("barrier"), together("broadcast")
broadcast_object_list = together("broadcast_object_list")


def all_reduce(data: Any, op: str = "sum", group: Any = None) -> None:
    together("all_reduce")(data, group=group)
    if op == "mean":
        data /= get_world_size(group)


def reduce_mean(tensor: Any) -> Any:
    """The mean of a tensor over the processes."""
    tensor = tensor.clone()
    all_reduce(tensor, "mean")
    return tensor


def all_gather(data: Any, group: Any = None) -> list[Any]:
    """The data of each process."""
    gathered = [data] * get_world_size(group)
    together("all_gather_object")(gathered, data, group)
    return gathered


all_gather_object = all_gather


def collect_results(results: list[Any], size: int, device: str = "cpu", tmpdir: Any = None) -> list[Any] | None:
    """The results of all processes in the order of the data."""
    joined = [item for group in itertools.zip_longest(*all_gather(results)) for item in group if item is not None]
    return joined[:size] if is_main_process() else None


collect_results_cpu = collect_results_gpu = collect_results


def terrazzo_does_it(*args: Any, **kwargs: Any) -> None:
    """Nothing: terrazzo sets processes and scopes up itself."""


init_dist = setup_multi_processes = set_multi_processing = init_default_scope = terrazzo_does_it
register_all_modules = terrazzo_does_it


def set_random_seed(seed: int, deterministic: bool = False, **_: Any) -> int:
    """Seed Python, numpy and torch."""
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)
    return seed


def get_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# Loggers


def get_logger(name: str = "mmseg", *args: Any, **kwargs: Any) -> logging.Logger:
    """A logger of the standard library below terrazzo's."""
    return logging.getLogger(f"terrazzo.{name}" if name else "terrazzo")


def get_root_logger(*args: Any, **kwargs: Any) -> logging.Logger:
    return get_logger()


def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
    """Log a message; without a logger print it, and for "silent" do nothing."""
    if logger is None:
        print(msg)
    elif logger != "silent":
        (logger if isinstance(logger, logging.Logger) else get_logger()).log(level, msg)


INSTANCES: dict[tuple[type, str], Any] = {}


class ManagerMixin:
    """A class with named instances, one of which is the current one."""

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        self.instance_name = name

    @classmethod
    def get_instance(cls, name: str = "mmengine", **kwargs: Any) -> Any:
        found = INSTANCES.get((cls, name))
        return INSTANCES.setdefault((cls, name), cls(name=name, **kwargs)) if found is None else found

    @classmethod
    def get_current_instance(cls) -> Any:
        return cls.get_instance()

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        return True


class MMLogger(ManagerMixin):
    """Named loggers of the process."""

    @classmethod
    def get_instance(cls, name: str = "mmengine", **kwargs: Any) -> logging.Logger:
        return get_logger(name)


class MessageHub(ManagerMixin):
    """Named values that parts of a program share."""

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        super().__init__(name)
        self.runtime_info: dict[str, Any] = {}
        self.log_scalars: dict[str, HistoryBuffer] = {}

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        self.runtime_info[key] = value

    def get_info(self, key: str, default: Any = None) -> Any:
        return self.runtime_info.get(key, default)

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        self.log_scalars.setdefault(key, HistoryBuffer()).append(float(value))

    def get_scalar(self, key: str) -> HistoryBuffer:
        return self.log_scalars[key]


class HistoryBuffer(list[float]):
    """The values of a scalar."""

    def current(self) -> float:
        return self[-1]

    def mean(self, window_size: int = 0) -> float:
        return float(np.mean(self[-window_size:]))


class DefaultScope(ManagerMixin):
    """The scope in which names are looked up: always the one."""

    scope_name = "mmseg"

    @classmethod
    def overwrite_default_scope(cls, scope: str | None = None) -> Any:
        return nullcontext()
