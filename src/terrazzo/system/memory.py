"""Memory that the C library keeps, and the limit on what this process may use."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from terrazzo.system.processes import end_with

NEARLY = 0.9  # of the limit, above which a failure that nothing else explains is a shortage
GRACE = 30.0  # seconds that a command has to stop after its supervisor is gone


@cache
def _trim() -> Any:
    """The function of glibc that gives freed memory back; None where there is no glibc."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def release_freed_memory() -> None:
    """Return freed memory to the system, which glibc otherwise keeps in pieces that nothing fits into."""
    trim = _trim()
    if trim is not None:
        trim(0)


def memory_limit() -> int | None:
    """The bytes that this process may use at most, by `ulimit -v` or `-d`; None without such a limit."""
    if sys.platform != "linux":
        return None
    import resource

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)


def was_near_limit() -> bool:
    """Return whether this process has used nearly all that it may."""
    limit = memory_limit()
    if limit is None:
        return False
    peak = re.search(r"VmPeak:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return peak is not None and int(peak[1]) * 1024 > NEARLY * limit


def supervised(work: Callable[[], int], lost: Callable[[], None]) -> int:
    """Do the work in a child process and return its exit code; `lost` is called and 1 returned if native code ends it.

    Libraries in C and C++ end a process that has no memory left, and Python cannot answer that from within.
    """
    parent = os.getpid()
    child = os.fork()
    if not child:
        end_with(parent, GRACE)
        return work()

    def pass_on(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    if -code in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV, signal.SIGKILL):
        lost()
        return 1
    return 128 - code
