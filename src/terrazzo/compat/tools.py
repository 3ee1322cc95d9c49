"""Checks of values, decorators, timers, progress and batches of mmcv and mmengine."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import pkgutil
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from terrazzo.compat.processes import get_device, set_random_seed

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


_ntuple, to_1tuple, to_2tuple, to_3tuple, to_4tuple = to_ntuple, *map(to_ntuple, (1, 2, 3, 4))


def iter_cast(inputs: Any, dst_type: Any, return_type: Any = None) -> Any:
    """Values turned into a type, as an iterator or a sequence of `return_type`."""
    made = map(dst_type, inputs)
    return made if return_type is None else return_type(made)


list_cast, tuple_cast = functools.partial(iter_cast, return_type=list), functools.partial(iter_cast, return_type=tuple)


def slice_list(in_list: list[Any], lens: Any) -> list[list[Any]]:
    """A list cut into parts of these lengths, or of one length."""
    lengths = [lens] * (len(in_list) // lens) if isinstance(lens, int) else lens
    if sum(lengths) != len(in_list):
        raise ValueError(f"sum of lens and list length does not match: {sum(lengths)} != {len(in_list)}")
    items = iter(in_list)
    return [[*itertools.islice(items, length)] for length in lengths]


def concat_list(in_list: Any) -> list[Any]:
    return [*itertools.chain(*in_list)]


def apply_to(data: Any, expr: Any, apply_func: Any) -> Any:
    """A function's results for the values inside dicts and sequences for which `expr` is true."""
    if isinstance(data, dict):
        return type(data)({key: apply_to(value, expr, apply_func) for key, value in data.items()})
    if isinstance(data, (list, tuple)):
        made = [apply_to(value, expr, apply_func) for value in data]
        return type(data)(*made) if hasattr(data, "_fields") else type(data)(made)
    return apply_func(data) if expr(data) else data


_to_cpu = functools.partial(apply_to, expr=lambda x: hasattr(x, "to"), apply_func=lambda x: x.to("cpu"))


def has_method(obj: object, method: str) -> bool:
    return callable(getattr(obj, method, None))


def is_method_overridden(method: str, base_class: type, derived_class: Any) -> bool:
    derived = derived_class if isinstance(derived_class, type) else type(derived_class)
    return getattr(derived, method) is not getattr(base_class, method)


def get_object_from_string(obj_name: str) -> Any:
    """The object of a dotted name."""
    return pkgutil.resolve_name(obj_name)


def import_modules_from_strings(imports: Any, allow_failed_imports: bool = False) -> Any:
    """The modules of these names, or the one."""

    def imported(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError:
            if not allow_failed_imports:
                raise
            return None

    return imported(imports) if isinstance(imports, str) else [*map(imported, imports)]


def merge_dict(*args: dict[str, Any]) -> dict[str, Any]:
    return {key: value for item in args for key, value in item.items()}


def worker_init_fn(worker_id: int, num_workers: int, rank: int, seed: int, *_: Any, **__: Any) -> None:
    """Seed a loader's process by its number."""
    set_random_seed(num_workers * rank + worker_id + seed)


def multi_apply(func: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], ...]:
    """The results of a function for each item, turned from rows to columns."""
    return tuple(map(list, zip(*map(functools.partial(func, **kwargs), *args), strict=True)))


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    """A version as numbers that compare; a pre-release comes before its release."""
    from packaging.version import parse

    version = parse(version_str.partition("+")[0])
    numbers = (*version.release, *[0] * (length - len(version.release)))
    if version.pre:
        stage = (-{"a": 3, "b": 2, "rc": 1}[version.pre[0]], version.pre[1])
    elif version.dev is not None:
        stage = (-4, version.dev)
    else:
        stage = (int(version.post is not None), version.post or 0)
    return (*numbers, *stage)


def deprecated_api_warning(name_dict: dict[str, str], cls_name: str | None = None) -> Any:
    """Rename keyword arguments of a function from old names to new ones."""

    def decorate(func: Any) -> Any:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **{name_dict.get(key, key): value for key, value in kwargs.items()})

        return wrapper

    return decorate


def torch_meshgrid(*tensors: Any) -> Any:
    return torch.meshgrid(*tensors, indexing="ij")


def is_jit_tracing() -> bool:
    return torch.jit.is_tracing()


def is_norm(layer: nn.Module, exclude: Any = None) -> bool:
    """Report whether a layer is a batch, group, instance or layer norm."""
    excluded = exclude is not None and isinstance(layer, exclude)
    return isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm)) and not excluded


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in model.modules())


def mmcv_full_available() -> bool:
    return True


class NiceRepr:
    """An object that shows its length, or what its `__nice__` gives."""

    def __nice__(self) -> str:
        return str(len(self)) if hasattr(self, "__len__") else hex(id(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.__nice__()}) at {hex(id(self))}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__}({self.__nice__()})>"


class Timer:
    """Seconds since the start, and since the last question."""

    def __init__(self, start: bool = True, print_tmpl: str | None = None) -> None:
        self.start_time = self.last_time = 0.0
        self.is_running, self.print_tmpl = False, print_tmpl or "{:.3f}"
        if start:
            self.start()

    def start(self) -> None:
        self.start_time = self.last_time = time.time() if not self.is_running else self.start_time
        self.is_running = True

    def since_start(self) -> float:
        self.last_time = time.time()
        return self.last_time - self.start_time

    def since_last_check(self) -> float:
        before, self.last_time = self.last_time, time.time()
        return self.last_time - before

    def __enter__(self) -> Timer:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        print(self.print_tmpl.format(self.since_last_check()))
        self.is_running = False


def plain_decorator(*args: Any, **kwargs: Any) -> Any:
    """A decorator, with or without arguments, that leaves a function as it is: precision is the loop's."""
    return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else lambda func: func


deprecated_function = requires_package = requires_executable = force_init_env = plain_decorator
autocast_box_type = auto_fp16 = force_fp32 = force_full_init = cache_randomness = plain_decorator


def autocast(device_type: str | None = None, dtype: Any = None, enabled: bool = True, **_: Any) -> Any:
    return torch.autocast(device_type or get_device(), dtype=dtype, enabled=enabled)


def collect_env() -> dict[str, str]:
    """The versions of the environment."""
    return {"sys.platform": sys.platform, "Python": platform.python_version(), "PyTorch": torch.__version__}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


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


track_iter_progress = iter


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
