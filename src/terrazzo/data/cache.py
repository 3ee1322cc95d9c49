"""Decoded images and labels, kept in memory or on disk for all processes of a machine: `cache="ram"` or `"disk"`."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terrazzo.errors import UserError, nearest
from terrazzo.hub.cache import home
from terrazzo.system.files import write_atomically
from terrazzo.system.processes import is_alive
from terrazzo.transforms.decode import read_size
from terrazzo.transforms.parts import file_of

KINDS = ("ram", "disk")
MEMORY, MEMINFO, GROUP = Path("/dev/shm"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
PROBED = 32  # images by whose sizes the space for all is estimated
GIB = 2**30


@dataclass
class DecodedCache:
    """Arrays as memory-mapped files of `folder`, named by their source's path, size and time and by how it was read."""

    folder: Path
    is_full: bool = False

    def get(self, path: Path, variant: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array that `read` gives for the file at `path`, read-only; it is kept at the first call."""
        stored = self.path_of(path, variant)
        if stored is None:
            return read()
        try:
            return np.load(stored, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except (OSError, ValueError, EOFError):  # not there yet, or not whole
            array = read()
        if not self.is_full:
            self.keep(stored, array)
        return array

    def path_of(self, path: Path, variant: str) -> Path | None:
        """Return the path for the array of a file as it is now, None if there is no such file."""
        try:
            found = file_of(path).stat()
        except OSError:
            return None
        name = hashlib.sha256(f"{path.absolute()}\n{variant}".encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}-{found.st_size:x}-{found.st_mtime_ns:x}.npy"

    def keep(self, place: Path, array: np.ndarray) -> None:
        """Write an array whole or not at all, in place of that of an older file; warns where the space is used up."""

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, array, allow_pickle=False)

        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            older = [path for path in place.parent.glob(f"{place.name[:32]}-*.npy") if path != place]
            write_atomically(place, save, flush=False)
        except (OSError, UserError) as problem:
            self.is_full = True
            reason = getattr(problem, "strerror", None) or problem
            warnings.warn(
                f"no more decoded images are kept in {self.folder}: {reason}; reading continues without", stacklevel=2
            )
        else:
            for path in older:
                path.unlink(missing_ok=True)


def open_cache(kind: str, images: Sequence[Path], channels: int = 3) -> DecodedCache:
    """The cache of a kind for these images, with their labels. Raises UserError where they would not fit."""
    if kind not in KINDS:
        raise UserError(f"cache is `ram` or `disk`, not '{kind}'{nearest(str(kind), KINDS)}")
    folder = home() / "decoded" if kind == "disk" else memory_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    except OSError as problem:
        raise UserError(
            f"cache: {kind} cannot write to {folder}: {problem.strerror or problem}"
            + ("; set TERRAZZO_HOME to another folder" if kind == "disk" else "; use `cache: disk`")
        ) from None
    if kind == "ram":
        enter(folder)
    check_space(kind, folder, images, channels)
    return DecodedCache(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed had begun to write."""
    for path in folder.glob("*/.*.tmp"):
        if not is_alive(int(path.name.split(".")[-2])):
            path.unlink(missing_ok=True)


def check_space(kind: str, folder: Path, images: Sequence[Path], channels: int) -> None:
    """Raise UserError where the decoded images and labels would not fit into what is free."""
    probed = [images[index] for index in np.linspace(0, len(images) - 1, min(PROBED, len(images))).astype(int)]
    sizes = []
    for path in probed:
        with suppress(UserError):  # an unreadable file is reported when it is read
            height, width = read_size(path)
            sizes.append(height * width)
    needed = float(np.mean(sizes or [0])) * (channels + 1) * len(images)
    held = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    free = free_space(kind, folder)
    if needed > free + held:
        other = "disk" if kind == "ram" else "ram"
        raise UserError(
            f"cache: {kind} would take about {needed / GIB:.1f} GiB for {len(images)} images and their labels, and "
            f"{folder} has {free / GIB:.1f} GiB free: use `cache: {other}`, or no cache"
            + (", or set TERRAZZO_HOME to a folder on a larger disk" if kind == "disk" else "")
        )


def free_space(kind: str, folder: Path) -> float:
    """Bytes that the folder can still take; of memory no more than nine tenths of what programs can get."""
    free = float(shutil.disk_usage(folder).free)
    if kind == "disk":
        return free
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        free = min(free, 0.9 * 1024 * int(lines.get("MemAvailable", lines["MemFree"]).split()[0]))
    limit, used = (GROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and limit.read_text().strip().isdigit():  # of this container
        free = min(free, 0.9 * (int(limit.read_text()) - int(used.read_text())))
    return max(free, 0.0)


def memory_folder() -> Path:
    """The folder in memory that all processes of this user share."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return (MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())) / f"terrazzo-{user}"


def enter(folder: Path) -> None:
    """Note that this process uses a folder in memory; the last one to end empties it."""
    leave_dead(folder)
    folder.mkdir(exist_ok=True)
    marker = folder / f"user-{os.getpid()}"
    if not marker.exists():
        marker.touch()
        atexit.register(leave, folder, os.getpid())


def leave(folder: Path, process: int) -> None:
    """Remove the marker of this process, and the folder with the last one."""
    if process == os.getpid():  # not in a process forked from it
        (folder / f"user-{process}").unlink(missing_ok=True)
        leave_dead(folder)


def leave_dead(folder: Path) -> None:
    """Remove the markers of ended processes; without any marker, the folder's content."""
    markers = list(folder.glob("user-*"))
    alive = [marker for marker in markers if is_alive(int(marker.name.removeprefix("user-")))]
    for marker in set(markers) - set(alive):
        marker.unlink(missing_ok=True)
    if not alive:
        for path in folder.glob("[0-9a-f][0-9a-f]"):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()
