"""The journal of which images are done, from which an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import terrazzo
from terrazzo.errors import UserError
from terrazzo.inference.many.sources import Item
from terrazzo.system.remote import fetch, joined, put, remote_files

NAME = ".manifest{}.jsonl"  # of a whole run, or of a shard
SAVED_EVERY = 5  # seconds between copies to an address


class Manifest:
    """A file of one line for each image whose results are in place: only added to, so that a kill loses none.

    An image is done if a line tells of the same `job` and of the same file, and its results are as they were left.
    `shard` distinguishes the files of several processes that write into one folder, all of which are read. Results at
    an `address` have a copy of the manifest beside them, which is brought up to date now and then.
    """

    def __init__(self, folder: Path, job: str, shard: str = "", address: str | None = None) -> None:
        self.folder, self.job, self.path, self.address = folder, job, folder / NAME.format(shard), address
        self.lock, self.saved = threading.Lock(), time.monotonic()
        self.there = self.listed() if address is not None else None
        self.entries: dict[str, dict[str, Any]] = {}  # by source
        for path in sorted(folder.glob(NAME.format("*"))):
            with suppress(OSError):
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    with suppress(ValueError, TypeError, KeyError):  # a line that was cut off
                        entry = json.loads(line)
                        if entry["job"] == job:
                            known = {"input": entry["input"], "files": dict(entry["files"])}
                            self.entries[entry["source"]] = known

    def listed(self) -> dict[str, list[int]]:
        """The size of each result at the address; manifests there are copied to the folder."""
        assert self.address is not None
        try:
            files = remote_files(self.address)
        except UserError:  # there is nothing yet
            return {}
        for file in files:
            if fnmatch(file.name, NAME.format("*")):
                fetch(file.address, self.folder / file.name)
        return {file.name: [file.version[0]] for file in files}

    def is_done(self, item: Item) -> bool:
        """Return whether the results of an item are there, made by this job from the file as it is."""
        entry = self.entries.get(str(item.source))
        if entry is None or entry["input"] != identity(item):
            return False
        there = self.there
        now = {name: facts(self.folder / name) if there is None else there.get(name) for name in entry["files"]}
        return bool(now == entry["files"])

    def add(self, entry: dict[str, Any]) -> None:
        """Note that the results of an item are in place. Raises UserError where that cannot be written."""
        entry = {**entry, "job": self.job}
        try:
            with self.lock, self.path.open("a+b") as file:
                is_cut = file.tell() > 0 and not ends_with_line(file)
                file.write(b"\n" * is_cut + json.dumps(entry).encode() + b"\n")
        except OSError as problem:
            raise UserError(f"cannot write {self.path}: {problem.strerror}; free some space") from None
        if time.monotonic() - self.saved > SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Bring the copy at the address up to date."""
        if self.address is not None and self.path.exists():
            with self.lock:
                put(self.path, joined(self.address, self.path.name))
                self.saved = time.monotonic()


def entry_of(item: Item, seen: Any, files: Iterable[Path], folder: Path, *, has_times: bool) -> dict[str, Any]:
    """The entry of an item, of the identity `seen` when it was read, whose results are `files` below a folder."""
    left = {os.path.relpath(path, folder): facts(path) for path in files}
    left = left if has_times else {name: found and found[:1] for name, found in left.items()}
    return {"source": str(item.source), "input": seen, "files": left}


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


def identity(item: Item) -> Any:
    """The size and the time of an item's file, or of those in its folder; the version of an address that has one."""
    if isinstance(item.source, str):
        return list(item.version)
    path = item.source
    return {file.name: facts(file) for file in sorted(path.iterdir())} if path.is_dir() else facts(path)


def facts(path: Path) -> list[int] | None:
    """The size and the time of a file; None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # the latter where it is no name of a file
        return None
    return [found.st_size, found.st_mtime_ns]
