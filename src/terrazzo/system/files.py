"""Files written atomically: complete or not at all."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from terrazzo.errors import UserError, first_line


def write_atomically(path: Path, write: Callable[[Path], object], *, flush: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it; on failure nothing is left.

    Without `flush`, a power failure may lose the file, as befits a cache. Raises UserError if the disk is full or the
    folder cannot be written; an existing file then stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        if flush:
            rename_durably(temporary, path)
        else:
            temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as problem:  # torch and safetensors raise the last two
        # torch does not distinguish a full disk from other failures
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        first = f"{first_line(problem)} ({free / 2**20:.0f} MiB free)"
        reason = getattr(problem, "strerror", None) or first
        raise UserError(f"cannot save {path}: {reason}; free some space or choose another folder") from problem
    finally:
        temporary.unlink(missing_ok=True)


def write_safetensors(path: Path, tensors: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Write tensors and their description atomically; the same content gives the same bytes."""
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        save_file(dict(tensors), str(temporary), metadata=dict(texts))
        with temporary.open("r+b") as file:  # the library puts the texts in random order
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            header["__metadata__"] = dict(sorted(texts.items()))
            ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
            assert len(ordered) == length
            file.seek(8)
            file.write(ordered)

    write_atomically(path, write)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file's content atomically. Raises UserError as `write_atomically` does."""
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def rename_durably(source: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it within its folder, replacing a file of that name."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(path)
    if os.name != "posix":  # elsewhere a folder cannot be synced
        return
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, *names: str) -> None:
    """Delete the temporary files for `names` (patterns) that a killed process left in a folder."""
    for name in names:
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Create a folder and check that it is writable. Raises UserError naming it otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as problem:
        raise UserError(f"cannot write to the folder {path}: {problem.strerror or problem}") from None
    return path


class OutputNames:
    """Names of output files after those of the images, each used once and never one that overwrites an image."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.taken: set[str] = set()

    def stem(self, image: Path) -> str:
        """The image's own stem, preceded by its folder's name or followed by a number where that is taken."""
        numbered = (f"{image.stem}_{number}" for number in itertools.count(2))
        for stem in itertools.chain((image.stem, f"{image.parent.name}_{image.stem}"), numbered):
            results = [folder / f"{stem}{suffix}" for folder in self.folders for suffix in (".png", ".tif")]
            overwrites = any(result.resolve() == image.resolve() for result in results)
            if stem not in self.taken and not overwrites:
                break
        self.taken.add(stem)
        return stem
