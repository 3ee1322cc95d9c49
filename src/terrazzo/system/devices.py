"""The device to compute on, and the treatment of denormal numbers in its threads."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from terrazzo.errors import UserError, first_line


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name`, or the best one here. Raises UserError for one that this torch cannot use."""
    flush_denormals()
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        available = ["cpu", *[f"cuda:{index}" for index in range(torch.cuda.device_count())]]
        reason = first_line(problem)
        raise UserError(f"device '{name}' cannot be used here ({reason}); available: {', '.join(available)}") from None
    return device


@cache
def flush_denormals() -> None:
    """Treat denormal numbers as zero in every thread of this process; they make trained networks many times slower.

    The setting applies to the calling thread and those started after it, so a running pool of threads is ended: OpenMP
    starts a new one when needed.
    """
    if torch.set_flush_denormal(True):
        _end_openmp_threads()


def _end_openmp_threads() -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "omp" in line.rpartition("/")[2]}
    for path in paths:
        if path.rpartition("/")[2].startswith(("libgomp", "libomp", "libiomp")):
            library = ctypes.CDLL(path)
            if hasattr(library, "omp_pause_resource_all"):
                library.omp_pause_resource_all(2)  # 2: omp_pause_hard
