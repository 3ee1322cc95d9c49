"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from terrazzo.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it; on failure nothing is left.

    Raises UserError where the disk is full or the folder cannot be written; a file of that name stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError, SafetensorError) as problem:  # the last two: what torch and safetensors make of one
        reason = getattr(problem, "strerror", None) or _reason(problem, path.parent)
        raise UserError(f"cannot save {path}: {reason}; free some space or choose another folder") from problem
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file's content whole or not at all. Raises UserError as `write_atomically` does."""
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda place: place.write_bytes(data))


def remove_leftovers(folder: Path, *names: str) -> None:
    """Delete the temporary files of `names` (patterns) that a killed process left in a folder."""
    for name in names:
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _reason(problem: Exception, folder: Path) -> str:
    """The first line of an error; torch does not tell a full disk from other failures."""
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    text = str(problem).splitlines()[0]
    return f"{text} ({free / 2**20:.0f} MiB free)"


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, on systems where a folder can be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create a folder and check that it can be written. Raises UserError naming it otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as problem:
        raise UserError(f"cannot write to the folder {path}: {problem.strerror or problem}") from None
    return path
