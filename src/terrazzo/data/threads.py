"""Work on many files in threads, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import track

from terrazzo.system.terminal import Console

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Collection[Item], title: str, console: Console | None
) -> Iterator[Result]:
    """The results of a function for each item, in their order; `console` shows the progress."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        work = pool.map(function, items)
        yield from track(work, title, len(items), console=console, transient=True, disable=console is None)
