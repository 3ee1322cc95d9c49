"""Results of a scene on disk while it is computed, and how far it has got: what `--resume` continues from."""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from terrazzo.errors import UserError
from terrazzo.system.files import make_folder, write_whole


class Layer(NamedTuple):
    """A result with `bands` values of a type for each pixel."""

    bands: int
    dtype: str


class Store:
    """A folder of plain arrays (bands, height, width), one file a layer, with a journal of what is complete.

    A folder that another `job` began, or any unless `resume`, is emptied first.
    """

    def __init__(
        self,
        folder: Path,
        size: tuple[int, int],
        layers: Mapping[str, Layer],
        job: Mapping[str, Any],
        *,
        resume: bool = False,
    ) -> None:
        self.folder, self.size, self.layers = folder, size, dict(layers)
        self.rows: dict[int, int] = {}  # of each chunk of columns, complete down to here
        self.damaged: list[list[int]] = []
        text = json.dumps({"size": size, "layers": self.layers, **job}, sort_keys=True, default=str)
        self.resumes = resume and self._is_of(text)
        if not self.resumes:
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            write_whole(folder / "job.json", text)
        self._files: dict[str, BinaryIO] = {}
        for name, (bands, dtype) in self.layers.items():
            self._path(name).touch()
            self._files[name] = self._path(name).open("r+b", buffering=0)
            self._files[name].truncate(bands * size[0] * size[1] * np.dtype(dtype).itemsize)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.raw"

    def _is_of(self, text: str) -> bool:
        """Read the journal, and return whether the folder belongs to this job."""
        try:
            if (self.folder / "job.json").read_text(encoding="utf-8") != text:
                return False
            lines = (self.folder / "journal.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        for line in lines:
            with suppress(ValueError, TypeError, KeyError, OverflowError):  # a line that was cut off
                entry = json.loads(line)
                chunk, rows = int(entry["chunk"]), int(entry["rows"])
                self.damaged += [cell for cell in entry["damaged"] if cell not in self.damaged]
                self.rows[chunk] = rows
        return True

    def write(self, name: str, top: int, left: int, block: np.ndarray) -> None:
        """Put a block (bands, h, w) in its place. Raises UserError where the disk is full."""
        bands, dtype = self.layers[name]
        height, width = self.size
        block = np.ascontiguousarray(block, dtype)
        rows_at_once = block.shape[1] if block.shape[2] == width else 1
        try:
            for band in range(bands):
                for row in range(0, block.shape[1], rows_at_once):
                    place = ((band * height + top + row) * width + left) * block.itemsize
                    write_fully(self._files[name], block[band, row : row + rows_at_once].data.cast("B"), place)
        except OSError as problem:
            raise self._full(problem) from None

    def commit(self, chunk: int, rows: int, damaged: list[list[int]]) -> None:
        """Record that a chunk of columns is complete down to a row, once its values are on disk."""
        self.rows[chunk] = rows
        self.damaged += [cell for cell in damaged if cell not in self.damaged]
        try:
            for file in self._files.values():
                os.fsync(file)
            with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as journal:
                journal.write(json.dumps({"chunk": chunk, "rows": rows, "damaged": damaged}) + "\n")
        except OSError as problem:
            raise self._full(problem) from None

    def _full(self, problem: OSError) -> UserError:
        return UserError(
            f"cannot write to {self.folder}: {problem.strerror}; free some space, then continue with --resume"
        )

    def array(self, name: str) -> np.ndarray:
        """A layer (H, W), or (bands, H, W) where it has several, read from disk as it is used."""
        bands, dtype = self.layers[name]
        array = np.memmap(self._path(name), dtype, mode="r", shape=(bands, *self.size))
        return array[0] if bands == 1 else array

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def remove(self) -> None:
        """Delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def rows_of(values: np.ndarray, top: int, bottom: int) -> np.ndarray:
    """A copy of some rows of values (..., H, W); what was read from a file for it does not stay in memory."""
    part = np.array(values[..., top:bottom, :])
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
    return part


def write_fully(file: BinaryIO, data: memoryview, place: int) -> None:
    """Write all bytes at a place of an unbuffered file. Raises OSError."""
    file.seek(place)
    while data:
        data = data[file.write(data) :]
