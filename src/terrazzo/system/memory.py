"""Memory that the C library keeps."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT_MEMORY, LARGEST_KEPT_BLOCK = 512 * 2**20, 32 * 2**20  # bytes; the second is as large as glibc allows
LARGE_BLOCK = 4 * 2**20  # bytes


@cache
def _of_glibc(name: str) -> Any:
    """A function of glibc; None where there is no glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def release_freed_memory() -> None:
    """Return freed memory to the system, which glibc otherwise keeps in pieces that nothing fits into."""
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def keep_freed_memory() -> None:
    """Let glibc keep what an image has freed for the next one: fresh pages cost a third of the time to decode one.

    Of the time to predict one with the bundled model, they cost a fifth.
    """
    if (change := _of_glibc("mallopt")) is not None:
        change(TRIM_THRESHOLD, KEPT_MEMORY)
        change(MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)


def return_large_blocks() -> None:
    """Let glibc return large blocks as soon as they are freed, so that no pieces of them stay behind."""
    if (change := _of_glibc("mallopt")) is not None:
        change(MMAP_THRESHOLD, LARGE_BLOCK)
