"""Starting a command once per device, on this machine or by SLURM, and ending all processes when one fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from terrazzo.errors import UserError
from terrazzo.system.process_group import GRACE, LAUNCHED_BY, LOST
from terrazzo.system.processes import stop_signals


def launch(count: int, arguments: Sequence[str], *, restarts: int = 0, cpu: bool = False) -> int:
    """Run `terrazzo ARGUMENTS` in `count` processes that train together; return the exit code of the first failure.

    After a failure all are ended and, up to `restarts` times, started again to resume. Raises UserError for more
    processes than GPUs, unless they run on the CPU.
    """
    import torch

    found = torch.cuda.device_count()
    if not cpu and 0 < found < count:
        raise UserError(f"--gpus {count}: this machine has {found} (or use --device cpu)")
    for attempt in range(restarts + 1):
        code, asked_to_stop = run_together(count, arguments, attempt)
        if code in (0, 2) or asked_to_stop:
            break
        if attempt < restarts:
            print(f"restarting {count} processes from the newest state ({attempt + 1} of {restarts})", file=sys.stderr)
    return code


def run_together(count: int, arguments: Sequence[str], attempt: int) -> tuple[int, bool]:
    """Run all processes once; return the exit code, and whether a signal ended them."""
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        LAUNCHED_BY: str(os.getpid()),
    }
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    members = [Member(rank, [sys.executable, "-m", "terrazzo", *arguments], shared) for rank in range(count)]
    signals = []

    def pass_on(number: int, _: Any) -> None:
        signals.append(number)
        for member in members:
            member.process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in stop_signals()}
    try:
        return watch(members), bool(signals)
    finally:
        for member in members:
            member.process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


class Member:
    """One process. The stderr of the first is passed on; the others' is kept, and shown if they fail."""

    def __init__(self, rank: int, command: Sequence[str], environment: dict[str, str]) -> None:
        self.rank = rank
        self.lines: deque[str] = deque(maxlen=50)
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        output = None if rank == 0 else subprocess.DEVNULL
        # a separate session: a ^C reaches it once, through the launcher
        self.process = subprocess.Popen(
            command, env=own, text=True, start_new_session=True, stdout=output, stderr=subprocess.PIPE
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)
            if self.rank == 0:
                print(line, end="", file=sys.stderr, flush=True)


def watch(members: Sequence[Member]) -> int:
    """Wait until all have succeeded, or end all after the first failure; return its exit code."""
    failed = None
    while failed is None:
        codes = [member.process.poll() for member in members]
        if set(codes) == {0}:
            return 0
        failed = next((member for member, code in zip(members, codes, strict=True) if code not in (None, 0)), None)
        time.sleep(0.05)
    end(members)
    for member in members:
        member.reader.join(timeout=5)
    for member in members[1:]:  # the one that failed, and the one whose failure it noticed before that was told
        own = [line for line in member.lines if line not in members[0].lines and LOST not in line]
        for line in own if member.process.returncode > 0 or member is failed else ():
            print(f"process {member.rank}: {line}", end="", file=sys.stderr)
    code = failed.process.returncode
    if code < 0:
        reason = f"was ended by {signal.Signals(-code).name}"
        print(f"error: process {failed.rank} of {len(members)} {reason}", file=sys.stderr)
    return max(1, code)


def end(members: Sequence[Member]) -> None:
    """End those still running, gently first: one that waits for a lost process notices by itself."""
    for patience, stop in ((5.0, subprocess.Popen.terminate), (GRACE, subprocess.Popen.kill)):
        limit = time.monotonic() + patience
        while any(member.process.poll() is None for member in members) and time.monotonic() < limit:
            time.sleep(0.05)
        for member in members:
            stop(member.process)
    for member in members:
        member.process.wait()


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
