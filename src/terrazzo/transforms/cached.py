"""What a loader needs to know of a cache of decoded files, which the data set hands it in a sample's meta."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from terrazzo.sample import Sample

CACHE_KEY = "cache"  # in Sample.meta


class Cache(Protocol):
    """Keeps what was decoded from files; `variant` tells apart different readings of one file."""

    def get(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray: ...


def read_through(sample: Sample, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` makes of a file, from the sample's cache if it has one; then it is not to be written into."""
    cache: Cache | None = sample.meta.get(CACHE_KEY)
    return read() if cache is None else cache.get(path, variant, read)
