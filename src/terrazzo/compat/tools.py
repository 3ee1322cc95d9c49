"""Checks of values, decorators, timers, progress and batches of mmcv and mmengine."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from terrazzo.compat.processes import get_device

TORCH_VERSION = torch.__version__
IS_CUDA_AVAILABLE = torch.cuda.is_available()


def is_seq_of(seq: Any, expected_type: Any, seq_type: Any = Sequence) -> bool:
    """Report whether a sequence holds values of a type only."""
    return isinstance(seq, seq_type or Sequence) and all(isinstance(item, expected_type) for item in seq)


is_list_of = functools.partial(is_seq_of, seq_type=list)
is_tuple_of = functools.partial(is_seq_of, seq_type=tuple)


def is_str(x: Any) -> bool:
    return isinstance(x, str)


def to_ntuple(count: int) -> Callable[[Any], Any]:
    return lambda x: tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else (x,) * count


_ntuple, to_2tuple, to_3tuple = to_ntuple, to_ntuple(2), to_ntuple(3)


def multi_apply(func: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], ...]:
    """The results of a function for each item, turned from rows to columns."""
    return tuple(map(list, zip(*map(functools.partial(func, **kwargs), *args), strict=True)))


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    """A version as numbers that compare; a pre-release comes before its release."""
    from packaging.version import parse

    version = parse(version_str)
    numbers = (*version.release, *[0] * (length - len(version.release)))
    pre = (-{"a": 3, "b": 2, "rc": 1}[version.pre[0]], version.pre[1]) if version.pre else (0, version.post or 0)
    return (*numbers, *pre)


def deprecated_api_warning(name_dict: dict[str, str], cls_name: str | None = None) -> Any:
    """Rename keyword arguments of a function from old names to new ones."""

    def decorate(func: Any) -> Any:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **{name_dict.get(key, key): value for key, value in kwargs.items()})

        return wrapper

    return decorate


def plain_decorator(*args: Any, **kwargs: Any) -> Any:
    """A decorator, with or without arguments, that leaves a function as it is: precision is the loop's."""
    return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else lambda func: func


auto_fp16 = force_fp32 = force_full_init = cache_randomness = plain_decorator


def autocast(device_type: str | None = None, dtype: Any = None, enabled: bool = True, **_: Any) -> Any:
    return torch.autocast(device_type or get_device(), dtype=dtype, enabled=enabled)


def collect_env() -> dict[str, str]:
    """The versions of the environment."""
    return {"sys.platform": sys.platform, "Python": platform.python_version(), "PyTorch": torch.__version__}


def get_git_hash(fallback: str = "unknown", digits: int | None = None) -> str:
    return fallback


class ProgressBar:
    """A count of tasks, without a bar."""

    def __init__(self, task_num: int = 0, *args: Any, **kwargs: Any) -> None:
        self.task_num, self.completed = task_num, 0

    def update(self, num_tasks: int = 1) -> None:
        self.completed += num_tasks


def track_progress(func: Any, tasks: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """The results of a function for each task."""
    return [*map(func, tasks[0] if isinstance(tasks, tuple) else tasks)]


def track_parallel_progress(func: Any, tasks: Any, nproc: int, *args: Any, **kwargs: Any) -> list[Any]:
    """The results of a function for each task, by several processes."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(nproc) as pool:
        return [*pool.map(func, tasks[0] if isinstance(tasks, tuple) else tasks)]


class ParallelModule(nn.Module):
    """A model inside a wrapper, as `MMDataParallel` and `MMDistributedDataParallel` are."""

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.train_step(*args, **kwargs)  # type: ignore[operator]


MMDataParallel = MMDistributedDataParallel = ParallelModule


def is_module_wrapper(module: nn.Module) -> bool:
    return isinstance(module, (ParallelModule, nn.DataParallel, nn.parallel.DistributedDataParallel))


is_model_wrapper = is_module_wrapper


def scatter_kwargs(inputs: Any, kwargs: Any, target_gpus: Any, dim: int = 0) -> Any:
    return [inputs], [kwargs]


def scatter(inputs: Any, target_gpus: Any, dim: int = 0) -> list[Any]:
    return [inputs]


def pseudo_collate(data_batch: Sequence[Any], samples_per_gpu: int = 1) -> Any:
    """The items of a batch as lists under the keys of each."""
    first = data_batch[0]
    return {key: [item[key] for item in data_batch] for key in first} if isinstance(first, dict) else [*data_batch]


collate = default_collate = pseudo_collate
