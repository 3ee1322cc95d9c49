"""The journal of which images are done, from which an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import terrazzo
from terrazzo.errors import UserError
from terrazzo.inference.many.sources import Item, Source

NAME = ".manifest{}.jsonl"  # of a whole run, or of a shard


class Manifest:
    """A file of one line for each image whose results are in place: only added to, so that a kill loses none.

    An image is done if a line tells of the same `job` and of the same file, and its results are as they were left.
    `shard` distinguishes the files of several processes that write into one folder, all of which are read.
    """

    def __init__(self, folder: Path, job: str, shard: str = "") -> None:
        self.folder, self.job, self.path = folder, job, folder / NAME.format(shard)
        self.lock = threading.Lock()
        self.entries: dict[str, dict[str, Any]] = {}  # by source
        for path in sorted(folder.glob(NAME.format("*"))):
            with suppress(OSError):
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    with suppress(ValueError, TypeError, KeyError):  # a line that was cut off
                        entry = json.loads(line)
                        if entry["job"] == job:
                            self.entries[entry["source"]] = entry

    def is_done(self, item: Item) -> bool:
        """Return whether the results of an item are there, made by this job from the file as it is."""
        entry = self.entries.get(str(item.source))
        if entry is None or entry["input"] != identity(item.source):
            return False
        return all(facts(self.folder / name) == left for name, left in entry["files"].items())

    def add(self, item: Item, seen: Any, files: Iterable[Path]) -> None:
        """Note that the results of an item, of the identity `seen` when it was read, are in place.

        Raises UserError where that cannot be written.
        """
        left = {os.path.relpath(path, self.folder): facts(path) for path in files}
        entry = {"source": str(item.source), "input": seen, "job": self.job, "files": left}
        try:
            with self.lock, self.path.open("a+b") as file:
                is_cut = file.tell() > 0 and not ends_with_line(file)
                file.write(b"\n" * is_cut + json.dumps(entry).encode() + b"\n")
        except OSError as problem:
            raise UserError(f"cannot write {self.path}: {problem.strerror}; free some space") from None


def ends_with_line(file: Any) -> bool:
    """Return whether an open file, at its end, is complete; the next line is then appended to it."""
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def job_of(segmenter: Any, options: Mapping[str, Any]) -> str:
    """A digest of whatever results depend on besides the image."""
    runtime = segmenter.runtime
    about = [runtime.fingerprint(), runtime.classes, runtime.palette, runtime.threshold, repr(segmenter.reader)]
    about += [repr(segmenter.pipeline.as_written()), repr(segmenter.memory), segmenter.max_pixels, terrazzo.__version__]
    text = json.dumps([about, dict(options)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity(source: Source) -> Any:
    """The size and the time of a file, or of those in a folder; None for an address."""
    path = Path(source)
    if isinstance(source, str):
        return None
    return {file.name: facts(file) for file in sorted(path.iterdir())} if path.is_dir() else facts(path)


def facts(path: Path) -> list[int] | None:
    """The size and the time of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
