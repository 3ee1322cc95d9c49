"""Checks of values, decorators, processes, loggers and values that parts of a program share."""

import functools
import getpass
import importlib
import itertools
import logging
import os
import pkgutil
import platform
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from terrazzo.compat.files.image import tensor2imgs
from terrazzo.errors import UserError
from terrazzo.system.messages import LOGGER, write_to


def is_seq_of(seq: Any, expected_type: Any, seq_type: Any = Sequence) -> bool:
    return isinstance(seq, seq_type or Sequence) and all(isinstance(item, expected_type) for item in seq)


def to_2tuple(x: Any, count: int = 2) -> Any:
    return tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else (x,) * count


def apply_to(data: Any, expr: Any, apply_func: Any) -> Any:
    if isinstance(data, dict):
        return type(data)({key: apply_to(value, expr, apply_func) for key, value in data.items()})
    if isinstance(data, (list, tuple)):
        return type(data)(apply_to(value, expr, apply_func) for value in data)
    return apply_func(data) if expr(data) else data


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    from packaging.version import parse

    release = parse(version_str).release
    return (*release, *[0] * (length - len(release)), 0, 0)


def deprecated_api_warning(name_dict: dict[str, str], cls_name: Any = None) -> Any:
    return lambda func: functools.wraps(func)(
        lambda *args, **kwargs: func(*args, **{name_dict.get(key, key): value for key, value in kwargs.items()})
    )


def plain_decorator(*args: Any, **kwargs: Any) -> Any:
    """A decorator, with or without arguments, that leaves a function as it is: precision is the loop's."""
    return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else lambda func: func


def in_group(operation: str, alone: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a function of torch.distributed; that of `alone` in a single process."""
    together = torch_dist.is_available() and torch_dist.is_initialized()
    return getattr(torch_dist, operation)(*args, **kwargs) if together else alone


get_rank, get_world_size = (functools.partial(in_group, *item) for item in (("get_rank", 0), ("get_world_size", 1)))


def master_only(func: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(func)(lambda *args, **kwargs: None if get_rank() else func(*args, **kwargs))


def reduce_mean(tensor: Any) -> Any:
    tensor = tensor.clone()
    in_group("all_reduce", None, tensor)
    return tensor / get_world_size()


def collect_results(results: list[Any], size: int, device: str = "cpu", tmpdir: Any = None) -> list[Any] | None:
    gathered = [results] * get_world_size()
    in_group("all_gather_object", None, gathered, results)
    joined = [item for group in itertools.zip_longest(*gathered) for item in group if item is not None]
    return None if get_rank() else joined[:size]


def all_gather(data: Any, group: Any = None) -> list[Any]:
    gathered = [torch.empty_like(data) for _ in range(get_world_size(group))]
    in_group("all_gather", None, gathered, data, group)
    return gathered if torch_dist.is_available() and torch_dist.is_initialized() else [data]


def all_reduce(data: Any, op: str = "sum", group: Any = None) -> None:
    kind = getattr(torch_dist.ReduceOp, "SUM" if op == "mean" else op.upper())
    in_group("all_reduce", None, data, kind, group)
    if op == "mean":
        data.copy_(data / get_world_size(group))


def sync_random_seed(group: Any = None) -> int:
    """A seed that all processes share."""
    seed = [random.getrandbits(31)]
    in_group("broadcast_object_list", None, seed, group=group)
    return seed[0]


def default_collate(data_batch: Sequence[Any]) -> Any:
    """A batch whose numbers and arrays are stacked; texts and data elements stay in lists."""
    first = data_batch[0]
    if isinstance(first, (str, bytes)) or hasattr(first, "metainfo"):
        return [*data_batch]
    if isinstance(first, dict):
        return type(first)({key: default_collate([item[key] for item in data_batch]) for key in first})
    if isinstance(first, (list, tuple)):
        return [default_collate(items) for items in zip(*data_batch, strict=True)]
    return torch.utils.data.default_collate([*data_batch])


def check_file_exist(filename: Any, msg_tmpl: str = 'file "{}" does not exist') -> None:
    if not Path(filename).is_file():
        raise FileNotFoundError(msg_tmpl.format(filename))


def unavailable(names: str, advice: str) -> dict[str, type]:
    """Classes that can be imported and inherited from, and say when one is made that terrazzo does not have them."""

    def refusing(name: str) -> type:
        def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
            raise UserError(f"terrazzo has no {name} that runs: {advice}")

        return type(name, (nn.Module,), {"__init__": refuse, "__module__": __name__, "advice": advice})

    return {name: refusing(name) for name in names.split()}


class HistoryBuffer:
    """The values that a scalar has had in a run, each a sum of some counts."""

    def __init__(self, log_history: Any = (), count_history: Any = (), max_length: int = 1000000) -> None:
        self.values, self.counts = deque(log_history, max_length), deque(count_history, max_length)

    data = property(lambda self: (np.array(self.values), np.array(self.counts)))

    def update(self, log_val: Any, count: int = 1) -> None:
        self.values.append(log_val)
        self.counts.append(count)

    def current(self) -> Any:
        return self.values[-1]

    def _last(self, window_size: int | None) -> slice:
        return slice(-window_size if window_size else None, None)

    def mean(self, window_size: int | None = None) -> Any:
        values, counts = (items[self._last(window_size)] for items in self.data)
        return values.sum() / counts.sum()

    def min(self, window_size: int | None = None) -> Any:
        return self.data[0][self._last(window_size)].min()

    def max(self, window_size: int | None = None) -> Any:
        return self.data[0][self._last(window_size)].max()


def set_random_seed(seed: int | None = None, deterministic: bool = False, *_: Any, **__: Any) -> int:
    seed = sync_random_seed() if seed is None else seed
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)
    return seed


class ParallelModule(nn.Module):
    """A model inside a wrapper, as `MMDataParallel` and `MMDistributedDataParallel` are."""

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module, self.forward = module, module.forward


def get_logger(name: str = "mmseg", log_file: Any = None, log_level: Any = None, file_mode: str = "w", **_: Any) -> Any:
    """A logger whose lines are seen on the screen and in a run's `log.txt`, and written to a file of its own."""
    found = LOGGER.getChild(name) if name else LOGGER
    if log_file is not None and not get_rank():
        write_to(found, log_file, file_mode)
    if log_level is not None:
        found.setLevel(log_level)
    return found


def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
    if logger is None:
        print(msg)
    elif logger != "silent":
        name = "mmseg" if logger == "current" else logger
        (get_logger(name) if isinstance(name, str) else name).log(level, msg)


instance: Any = functools.cache(lambda cls, name: cls(name))


class ManagerMixin:
    """A class with named instances, one of which is the current one."""

    scope_name = "mmseg"  # of DefaultScope: always the one

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        self.instance_name, self.runtime_info = name, dict[str, Any]()  # of MessageHub
        self.get_info, self.update_info = self.runtime_info.get, self.runtime_info.__setitem__
        self.log_scalars = defaultdict[str, HistoryBuffer](HistoryBuffer)
        self.get_scalar = self.log_scalars.__getitem__

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        self.update_info(key, value)
        self.log_scalars[key].update(value, count)

    get_instance = get_current_instance = classmethod(lambda cls, name="mmengine", **_: instance(cls, name))
    check_instance_created = staticmethod(lambda name: True)
    overwrite_default_scope = staticmethod(lambda scope=None: nullcontext())


class Timer:
    """Seconds since the start."""

    def __init__(self, start: bool = True, print_tmpl: str | None = None) -> None:
        self.start_time = time.time()

    def since_start(self) -> float:
        return time.time() - self.start_time

    since_last_check = since_start


def pseudo_collate(data_batch: Sequence[Any]) -> Any:
    first = data_batch[0]
    return {key: [item[key] for item in data_batch] for key in first} if isinstance(first, dict) else [*data_batch]


class FlopAnalyzer:
    """Multiply-adds of a model for its inputs, a tensor or a tuple."""

    def __init__(self, model: Any, inputs: Any) -> None:
        self.model, self.inputs = model, inputs if isinstance(inputs, tuple) else (inputs,)

    def total(self) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model(*self.inputs)
        return counter.get_total_flops() // 2


def get_model_complexity_info(model: Any, input_shape: Any, *_: Any, as_strings: bool = True, **__: Any) -> Any:
    """Multiply-adds and parameters of a model for images of (C, H, W)."""
    images = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    counts = FlopAnalyzer(model, images).total(), sum(p.numel() for p in model.parameters())
    return (f"{counts[0] / 1e9:.2f} GFLOPs", f"{counts[1] / 1e6:.2f} M") if as_strings else counts


DECORATORS = (
    "deprecated_function requires_package force_init_env auto_fp16 force_fp32 force_full_init cache_randomness "
    "autocast_box_type jit avoid_cache_randomness"
)
DONE_BY_TERRAZZO = (  # which sets processes and scopes up itself
    "init_dist wrap_fp16_model setup_multi_processes set_multi_processing init_default_scope register_all_modules "
    "use_backend update_init_info"
)
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
WRAPPERS = (ParallelModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
TABLE: dict[str, Any] = {
    "is_list_of": functools.partial(is_seq_of, seq_type=list),
    "is_tuple_of": functools.partial(is_seq_of, seq_type=tuple),
    "is_str": lambda x: isinstance(x, str),
    "is_filepath": lambda x: isinstance(x, (str, Path)),
    "has_method": lambda obj, method: callable(getattr(obj, method, None)),
    **{f"to_{n}tuple": functools.partial(to_2tuple, count=n) for n in (1, 3, 4)},
    "is_norm": lambda layer, exclude=(): isinstance(layer, NORM_LAYERS) and not isinstance(layer, exclude or ()),
    "is_module_wrapper": lambda module: isinstance(module, WRAPPERS),
    "is_model_wrapper": lambda model, registry=None: isinstance(model, WRAPPERS),
    "slice_list": lambda in_list, lens: [
        [*itertools.islice(items, count)]
        for items in [iter(in_list)]
        for count in ([lens] * (len(in_list) // lens) if isinstance(lens, int) else lens)
    ],
    "multi_apply": lambda func, *args, **kwargs: tuple(
        map(list, zip(*map(functools.partial(func, **kwargs), *args), strict=True))
    ),
    "_to_cpu": lambda data: apply_to(data, lambda x: hasattr(x, "to"), lambda x: x.to("cpu")),
    "import_modules_from_strings": lambda imports, *_, **__: [*map(importlib.import_module, imports)],
    "worker_init_fn": lambda worker_id, num_workers, rank, seed, *_, **__: set_random_seed(
        num_workers * rank + worker_id + seed
    ),
    "init_random_seed": lambda seed=None, *_, **__: seed if seed is not None else random.getrandbits(31),
    "_format_size": lambda x, sig_figs=3, hide_zero=False: next(
        (f"{x / 1000**n:.{sig_figs}g}{unit}" for n, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K")) if x >= 1000**n),
        str(x),
    ),
    "mmcv_full_available": lambda: True,
    "TORCH_VERSION": torch.__version__,
    "NiceRepr": object,
    "flops_to_string": lambda flops, units="GFLOPs", precision=2: f"{round(flops / 1e9, precision)} GFLOPs",
    "params_to_string": lambda num_params, units=None, precision=2: f"{round(num_params / 1e6, precision)} M",
    "concat_list": lambda in_list: [*itertools.chain(*in_list)],
    "mmengine.tensor2imgs": lambda tensor, mean=None, std=None, to_bgr=True: tensor2imgs(tensor, mean, std, to_bgr),
    "get_host_info": lambda: f"{getpass.getuser()}@{platform.node()}",
    "get_git_hash": lambda fallback="unknown", digits=None: fallback,
    "collect_env": lambda: {"Python": platform.python_version(), "PyTorch": TABLE["TORCH_VERSION"]},
    "autocast": lambda device_type=None, *given, **options: torch.autocast(
        device_type or TABLE["get_device"](), *given, **options
    ),
    **dict.fromkeys(
        ("track_progress", "track_parallel_progress"),
        lambda func, tasks, *_, **__: [*map(func, tasks[0] if isinstance(tasks, tuple) else tasks)],
    ),
    "track_iter_progress": iter,
    "ProgressBar": type("ProgressBar", (), dict.fromkeys(("__init__", "update"), lambda *_, **__: None)),
    "is_distributed": functools.partial(in_group, "is_initialized", False),
    "get_dist_info": lambda group=None: (get_rank(group), get_world_size(group)),
    "is_main_process": lambda group=None: get_rank(group) == 0,
    **{name: functools.partial(in_group, name, None) for name in ("barrier", "broadcast", "broadcast_object_list")},
    "gather": lambda data, dst=0, group=None: all_gather(data, group) if get_rank(group) == dst else [],
    "get_local_rank": lambda: int(os.environ.get("LOCAL_RANK", "0")),
    "is_abs": lambda path: Path(path).is_absolute() or str(path).startswith(("http://", "https://", "s3://")),
    "getuser": getpass.getuser,
    "obsolete_torch_version": lambda torch_version, version_threshold: torch_version <= version_threshold,
    "get_object_from_string": pkgutil.resolve_name,
    **dict.fromkeys(
        ("collect_results_cpu", "collect_results_gpu"),
        lambda result_part, size, tmpdir=None: collect_results(result_part, size),
    ),
    "get_device": lambda: "cuda" if torch.cuda.is_available() else "cpu",
    "get_root_logger": lambda *args, **options: get_logger("mmseg", *args, **options),
    "MMLogger": type("MMLogger", (), dict.fromkeys(("get_instance", "get_current_instance"), staticmethod(get_logger))),
    **dict.fromkeys(("MMDataParallel", "MMDistributedDataParallel"), ParallelModule),
    **dict.fromkeys(("build_dp", "build_ddp"), lambda model, *_, **__: ParallelModule(model)),
    "scatter_kwargs": lambda inputs, kwargs, target_gpus, dim=0: ([inputs], [kwargs]),
    "scatter": lambda inputs, target_gpus, dim=0: [inputs],
    "collate": lambda batch, samples_per_gpu=1: pseudo_collate(batch),
    **dict.fromkeys(("DefaultScope", "MessageHub"), ManagerMixin),
    **dict.fromkeys(DECORATORS.split(), plain_decorator),
    **dict.fromkeys(DONE_BY_TERRAZZO.split(), lambda *args, **kwargs: None),
}
