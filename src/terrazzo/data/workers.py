"""The processes that read samples ahead: how they behave, and the message when one of them dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import cv2
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info
from torch.utils.data._utils import signal_handling

from terrazzo.data.wrappers import Dataset, as_position
from terrazzo.errors import UserError, first_line
from terrazzo.system.memory import keep_freed_memory

IDLE = -1
PINNING = "_pin_memory_loop"  # the thread of torch that pins batches

is_waiting = False  # whether the main thread waits for a batch
watched: WeakSet[Any] = WeakSet()  # the iterators whose workers run


class Watched(TorchDataset[Any]):
    """A data set that notes, where all processes see it, which sample each of its worker processes is reading."""

    def __init__(self, dataset: Dataset, workers: int) -> None:
        self.dataset = dataset
        self.classes, self.palette = dataset.classes, dataset.palette
        try:
            self.reading = torch.full((workers, 2), IDLE, dtype=torch.int64).share_memory_()  # process id, index
        except RuntimeError as problem:
            raise UserError(shared_memory_is_short(problem)) from None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        worker = get_worker_info()
        assert worker is not None, "only worker processes read a watched data set"
        slot = self.reading[worker.id]
        slot[0], slot[1] = os.getpid(), as_position(position)[1]
        sample = self.dataset[position]
        slot[1] = IDLE
        return sample

    def files_of(self, processes: set[int]) -> list[Path]:
        """The images that these processes were reading."""
        found = self.dataset.origins()
        indices = [index for process, index in self.reading.tolist() if process in processes and index != IDLE]
        return [leaf.pairs[inner][0] for leaf, inner in (found[index] for index in indices)]


@contextmanager
def losses_held_back() -> Iterator[None]:
    """Let torch raise its error about a lost worker only inside `losses_raised`, and one thread of it print nothing.

    Its signal handler raises in whatever the main thread does, where the error breaks the start of a thread or is
    swallowed; a traceback of the thread that pins batches says less than the error.
    """
    print_failure = threading.excepthook
    threading.excepthook = lambda failure: None if is_of_lost_worker(failure) else print_failure(failure)
    by_signal = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    if by_signal:
        signal_handling._set_SIGCHLD_handler()
        torch_handler: Any = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, lambda *event: torch_handler(*event) if is_waiting else None)
    try:
        yield
    finally:
        threading.excepthook = print_failure
        if by_signal:
            signal.signal(signal.SIGCHLD, torch_handler)


def is_of_lost_worker(failure: Any) -> bool:
    """Return whether a thread has failed because the worker is gone whose batch it received."""
    return PINNING in failure.thread.name and isinstance(failure.exc_value, (OSError, EOFError))


@contextmanager
def losses_raised() -> Iterator[None]:
    """Raise an error about any worker that is lost inside or has been before."""
    global is_waiting
    is_waiting = True
    try:
        for worker in (worker for batches in watched for worker in getattr(batches, "_workers", ())):
            if worker.exitcode:  # torch itself misses those that have ended when others are started
                raise RuntimeError(f"DataLoader worker (pid {worker.pid}) has ended")
        yield
    finally:
        is_waiting = False


def lost_workers(problem: Exception, batches: Any) -> set[int]:
    """Return the processes of an iterator's workers whose end has caused an error; none if it has another cause."""
    if "DataLoader worker" in str(problem):
        named = re.search(r"\(pids?(?:\(s\))? ([\d, ]+)\)", str(problem))
        return {int(number) for number in re.findall(r"\d+", named.group(1))} if named else {IDLE}
    if isinstance(problem, RuntimeError) and "Pin memory thread" not in str(problem):
        return set()
    with suppress(RuntimeError):  # of torch, which learns of it now
        time.sleep(0.2)
    return {worker.pid for worker in getattr(batches, "_workers", ()) if worker.exitcode}


def worker_died(problem: Exception, dataset: Any, processes: set[int]) -> UserError:
    """Return the error to report in place of the one that the loss of these workers has caused."""
    files = dataset.files_of(processes) if isinstance(dataset, Watched) else []
    during = f" while it read {' and '.join(map(str, files))}" if files else ""
    look = "; if it is always the same file, it is damaged or too large" if files else ""
    return UserError(
        f"a loader worker was killed{during} ({first_line(problem)}), most often because memory ran out: lower "
        f"num_workers (`workers`){look}"
    )


def shared_memory_is_short(problem: RuntimeError) -> str:
    """The message to report in place of one of torch's about shared memory."""
    folder, size = Path("/dev/shm"), ""
    if folder.is_dir():
        size = f" {folder} has {shutil.disk_usage(folder).total / 2**20:.0f} MiB."
    return (
        f"there is not enough shared memory for what loader workers read ({first_line(problem)}).{size} Start "
        "the container with more, such as docker run --shm-size=8g, or read without workers: `workers: 0` "
        "(num_workers=0)"
    )


def end_workers(batches: Any) -> None:
    """End the workers behind an iterator over a DataLoader, if it has any; those that are stuck within seconds."""
    shut_down = getattr(batches, "_shutdown_workers", None)
    if shut_down is None:
        return
    watched.discard(batches)
    with suppress(RuntimeError):  # of torch, about a worker that is lost meanwhile; it ends the others all the same
        if any(worker.exitcode for worker in batches._workers):  # they may wait for a lock that a lost one held
            for worker in batches._workers:
                worker.terminate()
            pinning = vars(batches).pop("_pin_memory_thread", None)
            if pinning is not None:  # torch would wait for it, and it may wait for the rest of a message
                batches._pin_memory_thread_done_event.set()
                pinning.join(1)
        shut_down()


def start_worker(_: int) -> None:
    """Make a loader worker use one thread, and leave signals to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = print_unless_alone
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=end_when_told, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()


def print_unless_alone(kind: type[BaseException], problem: BaseException, trace: Any) -> None:
    """Print an error of a worker's thread, unless it is that the main process takes no more from it."""
    if not isinstance(problem, (OSError, EOFError)):
        sys.__excepthook__(kind, problem, trace)


def end_when_told(main: int) -> None:
    """Wait for the main process's SIGTERM; one to all processes is not meant for a worker, which serves the last step.

    The worker ends as one that is done, or torch would report it as lost.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)


def worker_count(wanted: int) -> int:
    """Return the number of workers: at most one per core."""
    return max(0, min(wanted, os.cpu_count() or 1))
