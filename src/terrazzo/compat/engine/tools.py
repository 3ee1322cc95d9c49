"""Checks of values, decorators, processes, loggers and values that parts of a program share."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import logging
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist
from torch import nn

TORCH_VERSION = torch.__version__


def is_seq_of(seq: Any, expected_type: Any, seq_type: Any = Sequence) -> bool:
    """Report whether a sequence holds values of a type only."""
    return isinstance(seq, seq_type or Sequence) and all(isinstance(item, expected_type) for item in seq)


def to_ntuple(count: int) -> Callable[[Any], Any]:
    return lambda x: tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else (x,) * count


to_2tuple = to_ntuple(2)


def slice_list(in_list: list[Any], lens: Any) -> list[list[Any]]:
    """A list cut into parts of these lengths, or of one length."""
    lengths = [lens] * (len(in_list) // lens) if isinstance(lens, int) else lens
    items = iter(in_list)
    return [[*itertools.islice(items, length)] for length in lengths]


def apply_to(data: Any, expr: Any, apply_func: Any) -> Any:
    """A function's results for the values inside dicts and sequences for which `expr` is true."""
    if isinstance(data, dict):
        return type(data)({key: apply_to(value, expr, apply_func) for key, value in data.items()})
    if isinstance(data, (list, tuple)):
        return type(data)(apply_to(value, expr, apply_func) for value in data)
    return apply_func(data) if expr(data) else data


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    """A version as numbers that compare; a pre-release comes before its release."""
    from packaging.version import parse

    version = parse(version_str.partition("+")[0])
    numbers = (*version.release, *[0] * (length - len(version.release)))
    if version.pre:
        return (*numbers, -{"a": 3, "b": 2, "rc": 1}[version.pre[0]], version.pre[1])
    return (*numbers, -4, version.dev) if version.dev is not None else (*numbers, int(version.post is not None), 0)


def deprecated_api_warning(name_dict: dict[str, str], cls_name: str | None = None) -> Any:
    """Rename keyword arguments of a function from old names to new ones."""

    def decorate(func: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **{name_dict.get(key, key): value for key, value in kwargs.items()})

        return functools.wraps(func)(wrapper)

    return decorate


def plain_decorator(*args: Any, **kwargs: Any) -> Any:
    """A decorator, with or without arguments, that leaves a function as it is: precision is the loop's."""
    return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else lambda func: func


# Processes


def in_group(operation: str, alone: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a function of torch.distributed; that of `alone` in a single process."""
    together = torch_dist.is_available() and torch_dist.is_initialized()
    return getattr(torch_dist, operation)(*args, **kwargs) if together else alone


get_rank, get_world_size = (functools.partial(in_group, *item) for item in (("get_rank", 0), ("get_world_size", 1)))


def master_only(func: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function in the first process only."""
    return functools.wraps(func)(lambda *args, **kwargs: None if get_rank() else func(*args, **kwargs))


def reduce_mean(tensor: Any) -> Any:
    """The mean of a tensor over the processes."""
    tensor = tensor.clone()
    in_group("all_reduce", None, tensor)
    return tensor / get_world_size()


def collect_results(results: list[Any], size: int, device: str = "cpu", tmpdir: Any = None) -> list[Any] | None:
    """The results of all processes in the order of the data."""
    gathered = [results] * get_world_size()
    in_group("all_gather_object", None, gathered, results)
    joined = [item for group in itertools.zip_longest(*gathered) for item in group if item is not None]
    return None if get_rank() else joined[:size]


def set_random_seed(seed: int, deterministic: bool = False, **_: Any) -> int:
    """Seed Python, numpy and torch."""
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)
    return seed


class ParallelModule(nn.Module):
    """A model inside a wrapper, as `MMDataParallel` and `MMDistributedDataParallel` are."""

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def is_module_wrapper(module: nn.Module) -> bool:
    return isinstance(module, (ParallelModule, nn.DataParallel, nn.parallel.DistributedDataParallel))


# Logs and shared values


def get_logger(name: str = "mmseg", *args: Any, **kwargs: Any) -> logging.Logger:
    """A logger of the standard library below terrazzo's."""
    return logging.getLogger(f"terrazzo.{name}" if name else "terrazzo")


def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
    """Log a message; without a logger print it, and for "silent" do nothing."""
    if logger is None:
        print(msg)
    elif logger != "silent":
        (logger if isinstance(logger, logging.Logger) else get_logger()).log(level, msg)


INSTANCES: dict[tuple[type, str], Any] = {}


class ManagerMixin:
    """A class with named instances, one of which is the current one."""

    scope_name = "mmseg"  # of DefaultScope: always the one

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        self.instance_name = name

    @classmethod
    def get_instance(cls, name: str = "mmengine", **kwargs: Any) -> Any:
        if (cls, name) not in INSTANCES:
            INSTANCES[cls, name] = cls(name=name, **kwargs)
        return INSTANCES[cls, name]

    get_current_instance = get_instance
    check_instance_created = staticmethod(lambda name: True)
    overwrite_default_scope = staticmethod(lambda scope=None: nullcontext())


class MMLogger(ManagerMixin):
    """Named loggers of the process."""

    get_instance = get_current_instance = staticmethod(get_logger)  # type: ignore[assignment]


class MessageHub(ManagerMixin):
    """Named values that parts of a program share."""

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        super().__init__(name)
        self.runtime_info: dict[str, Any] = {}
        self.get_info = self.runtime_info.get

    def update_info(self, key: str, value: Any, *_: Any, **__: Any) -> None:
        self.runtime_info[key] = value

    update_scalar = update_info


class Timer:
    """Seconds since the start, and since the last question."""

    def __init__(self, start: bool = True, print_tmpl: str | None = None) -> None:
        self.start_time = self.last_time = time.time()

    def since_start(self) -> float:
        return time.time() - self.start_time

    def since_last_check(self) -> float:
        before, self.last_time = self.last_time, time.time()
        return self.last_time - before


class ProgressBar:
    """A count of tasks, without a bar."""

    def __init__(self, task_num: int = 0, *args: Any, **kwargs: Any) -> None:
        self.task_num, self.completed = task_num, 0

    def update(self, num_tasks: int = 1) -> None:
        self.completed += num_tasks


def pseudo_collate(data_batch: Sequence[Any], samples_per_gpu: int = 1) -> Any:
    """The items of a batch as lists under the keys of each."""
    first = data_batch[0]
    return {key: [item[key] for item in data_batch] for key in first} if isinstance(first, dict) else [*data_batch]


def track_progress(func: Any, tasks: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """The results of a function for each task, one after the other."""
    return [*map(func, tasks[0] if isinstance(tasks, tuple) else tasks)]


def get_model_complexity_info(model: Any, input_shape: Any, *_: Any, as_strings: bool = True, **__: Any) -> Any:
    """Multiply-adds and parameters of a model for images of (C, H, W)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *input_shape, device=next(model.parameters()).device))
    counts = counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())
    return (f"{counts[0] / 1e9:.2f} GFLOPs", f"{counts[1] / 1e6:.2f} M") if as_strings else counts


DECORATORS = "deprecated_function requires_package force_init_env auto_fp16 force_fp32 force_full_init cache_randomness"
DONE_BY_TERRAZZO = (  # which sets processes and scopes up itself
    "init_dist setup_multi_processes set_multi_processing init_default_scope register_all_modules use_backend"
)
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
TABLE: dict[str, Any] = {
    "is_list_of": functools.partial(is_seq_of, seq_type=list),
    "is_tuple_of": functools.partial(is_seq_of, seq_type=tuple),
    "is_str": lambda x: isinstance(x, str),
    **{f"to_{count}tuple": to_ntuple(count) for count in (1, 3, 4)},
    "has_method": lambda obj, method: callable(getattr(obj, method, None)),
    "concat_list": lambda in_list: [*itertools.chain(*in_list)],
    "multi_apply": lambda func, *args, **kwargs: tuple(
        map(list, zip(*map(functools.partial(func, **kwargs), *args), strict=True))
    ),
    "_to_cpu": lambda data: apply_to(data, lambda x: hasattr(x, "to"), lambda x: x.to("cpu")),
    "import_modules_from_strings": lambda imports, *_, **__: [*map(importlib.import_module, imports)],
    "worker_init_fn": lambda id, num_workers, rank, seed, **_: set_random_seed(num_workers * rank + id + seed),
    "is_norm": lambda layer, exclude=(): isinstance(layer, NORM_LAYERS) and not isinstance(layer, exclude or ()),
    "mmcv_full_available": lambda: True,
    "is_installed": lambda package: importlib.util.find_spec(package) is not None,
    "get_git_hash": lambda fallback="unknown", digits=None: fallback,
    "collect_env": lambda: {"Python": platform.python_version(), "PyTorch": TORCH_VERSION, "platform": sys.platform},
    "autocast": lambda device_type=None, **options: torch.autocast(device_type or TABLE["get_device"](), **options),
    "track_parallel_progress": track_progress,
    "flops_to_string": lambda flops, units="GFLOPs", precision=2: f"{round(flops / 1e9, precision)} GFLOPs",
    "params_to_string": lambda num_params, units=None, precision=2: f"{round(num_params / 1e6, precision)} M",
    "NiceRepr": object,
    "is_distributed": functools.partial(in_group, "is_initialized", False),
    "get_dist_info": lambda: (get_rank(), get_world_size()),
    "is_main_process": lambda group=None: get_rank() == 0,
    **{name: functools.partial(in_group, name, None) for name in ("barrier", "broadcast", "broadcast_object_list")},
    "all_reduce": lambda data, op="sum", group=None: in_group("all_reduce", None, data),
    "collect_results_cpu": collect_results,
    "get_device": lambda: "cuda" if torch.cuda.is_available() else "cpu",
    "get_root_logger": lambda *_, **__: get_logger(),
    **dict.fromkeys(("MMDataParallel", "MMDistributedDataParallel"), ParallelModule),
    "is_model_wrapper": is_module_wrapper,
    "scatter_kwargs": lambda inputs, kwargs, target_gpus, dim=0: ([inputs], [kwargs]),
    "scatter": lambda inputs, target_gpus, dim=0: [inputs],
    "collate": pseudo_collate,
    "DefaultScope": ManagerMixin,
    **dict.fromkeys(DECORATORS.split(), plain_decorator),
    **dict.fromkeys(DONE_BY_TERRAZZO.split(), lambda *args, **kwargs: None),
}
