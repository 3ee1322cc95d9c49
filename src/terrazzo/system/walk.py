"""The files below a folder: links are followed, hidden files and those left by archivers are not listed."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

LEFT_BY_ARCHIVERS = "__MACOSX"


def is_shown(name: str) -> bool:
    """Report whether a file or folder belongs to the data: neither hidden nor left by an archiver."""
    return not name.startswith((".", LEFT_BY_ARCHIVERS))


def walk(root: Path) -> Iterator[tuple[PurePosixPath, str, list[str], list[str]]]:
    """Each folder below `root`: its relative and its real path, and its sorted subfolders and files.

    Linked folders come after the others; a link to a folder that contains it is left out.
    """

    def visit(
        folder: PurePosixPath, above: tuple[str, ...]
    ) -> Iterator[tuple[PurePosixPath, str, list[str], list[str]]]:
        try:
            with os.scandir(root / folder) as found:
                entries = sorted((entry for entry in found if is_shown(entry.name)), key=lambda entry: entry.name)
        except PermissionError:
            return
        real = {
            entry.name: os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)  # noqa: PTH118
            for entry in entries
            if entry.is_dir()
        }
        subfolders = sorted(
            (entry.name for entry in entries if entry.name in real and real[entry.name] not in above),
            key=lambda name: (real[name] != os.path.join(above[-1], name), name),  # noqa: PTH118
        )
        yield folder, above[-1], subfolders, [entry.name for entry in entries if entry.name not in real]
        for name in subfolders:
            yield from visit(folder / name, (*above, real[name]))

    yield from visit(PurePosixPath(), (os.path.realpath(root),))


class FileIndex:
    """The files below a folder, found by relative path whatever their case and the encoding of their accents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def paths(self) -> list[PurePosixPath]:
        """The files in a stable order, relative to the folder; those of a folder with several links to it once."""
        seen: dict[str, list[PurePosixPath]] = {}
        for folder, real, _, files in walk(self.folder) if self.folder.is_dir() else ():
            seen.setdefault(real, [folder / name for name in files])
        return sorted(path for paths in seen.values() for path in paths)

    @cached_property
    def by_key(self) -> dict[str, list[str]]:
        """The paths of each key; there are several where they differ in case alone."""
        found: dict[str, list[str]] = {}
        for path in map(str, self.paths):
            found.setdefault(file_key(path), []).append(path)
        return found

    def find(self, path: str) -> Path | None:
        """The file with a relative path, by preference the one that is written exactly so."""
        alike = self.by_key.get(file_key(path), [])
        return self.folder / (path if path in alike else alike[0]) if alike else None


def file_key(name: str) -> str:
    """The part of a name that file systems agree on."""
    return unicodedata.normalize("NFC", name).casefold()
