"""Memory that the C library keeps."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """The function of glibc that gives freed memory back; None where there is no glibc."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def release_freed_memory() -> None:
    """Return freed memory to the system, which glibc otherwise keeps in pieces that nothing fits into."""
    trim = _trim()
    if trim is not None:
        trim(0)
