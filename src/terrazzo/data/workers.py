"""The processes that read samples ahead: how they behave, and the message when one of them dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from terrazzo.data.wrappers import Dataset, as_position
from terrazzo.errors import UserError, first_line
from terrazzo.system.memory import keep_freed_memory

IDLE = -1


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


def lost_workers(problem: Exception, batches: Any) -> set[int]:
    """Return the processes of an iterator's workers whose end has caused an error; none if it has another cause."""
    if "DataLoader worker" in str(problem):
        named = re.search(r"\(pids?(?:\(s\))? ([\d, ]+)\)", str(problem))
        return {int(number) for number in re.findall(r"\d+", named.group(1))} if named else {IDLE}
    if isinstance(problem, RuntimeError):
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
    with suppress(RuntimeError):  # of torch, about a worker that is lost meanwhile; it ends the others all the same
        if any(worker.exitcode for worker in batches._workers):  # they may wait for a lock that a lost one held
            for worker in batches._workers:
                worker.terminate()
        shut_down()


def start_worker(_: int) -> None:
    """Make a loader worker use one thread, and leave signals to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=end_when_told, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()


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
