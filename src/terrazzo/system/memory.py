"""Memory that the C library keeps."""

from __future__ import annotations

import ctypes
import sys


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library (glibc) would keep it for later."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
