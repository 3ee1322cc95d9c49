"""Other processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path


def is_alive(process: int, began: str | None = None) -> bool:
    """Return whether the process with this id (that `began` then) runs; where that is unknown, assume that it does."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        pass
    state, now = _facts(process)
    return state not in ("Z", "X") and (began is None or now is None or now == began)


def beginning(process: int) -> str | None:
    """The time when a process began, in the kernel's clock: its id may be used again; None where that is unknown."""
    return _facts(process)[1]


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a process to stop: ^C, a termination, and a closed terminal unless `nohup` ignores that."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    return wanted


def end_with(parent: int, grace: float) -> None:
    """Send this process a SIGTERM when its parent is gone, and end it if that has not helped after `grace` seconds."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with_parent() -> None:
    """Let this worker of a pool end soon after the process that started it: it would wait for ever on a killed one."""
    end_with(os.getppid(), grace=1.0)


def _facts(process: int) -> tuple[str | None, str | None]:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None, None
