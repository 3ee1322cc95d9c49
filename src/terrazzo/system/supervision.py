"""Commands under a limit on memory: what native code ends is told of by a process that watches."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from terrazzo.system.processes import end_with

NEARLY = 0.9  # of the limit, above which a failure that nothing else explains is a shortage
LOADER_FAILED = 127  # the code with which glibc's loader of libraries ends a process
GRACE = 30.0  # seconds that a command has to stop after its supervisor is gone


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

    Libraries in C and C++ end a process that has no memory left, and Python cannot answer that from within. What they
    print on standard error is shown at the end, unless it is about that.
    """
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    with tempfile.TemporaryFile() as printed:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        parent, child = os.getpid(), os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            own = sys.stderr
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=own.encoding, errors=own.errors)
            os.dup2(printed.fileno(), 2)
            logging.disable()  # of tracebacks that libraries log while memory is short
            end_with(parent, GRACE)
            try:
                return work()
            except MemoryError:  # of the message itself
                os.abort()
        ended, status = 0, 0
        while not ended:
            told = signal.sigwaitinfo(signals)
            if told.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(child, os.WNOHANG)
            elif told.si_signo != signal.SIGINT or told.si_code <= 0:  # that of a terminal goes to both
                os.kill(child, told.si_signo)
        code = os.waitstatus_to_exitcode(status)
        if code == LOADER_FAILED or -code in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV, signal.SIGKILL):
            lost()
            return 1
        printed.seek(0)
        sys.stderr.write(printed.read().decode(errors="replace"))
    return code if code >= 0 else 128 - code
