"""Turns at the model: as many images at a time as it can take, among which torch's threads are shared out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_LANES = 8


class Turns:
    """The `lanes` of a model, each for one image; whoever needs several waits for them, the first to come first."""

    def __init__(self, lanes: int) -> None:
        self.lanes = self.free = lanes
        self.queue, self.changed = threading.Lock(), threading.Condition()

    @contextmanager
    def take(self, count: int = 1) -> Iterator[None]:
        """Wait for `count` lanes, and hold them inside."""
        with self.queue, self.changed:
            self.changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            with self.changed:
                self.free += count
                self.changed.notify_all()


def lanes_of(runtime: Any) -> int:
    """The number of images that a model predicts at a time: one a core where torch runs it on the CPU, else one."""
    if not runtime.is_concurrent:
        return 1
    return min(MOST_LANES, cores())


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads inside, at least one; None leaves them as they are."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_count() -> int:
    """The threads that torch uses."""
    import torch

    return torch.get_num_threads()
