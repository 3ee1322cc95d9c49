"""The files of a download, loose or in archives."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path

from terrazzo.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DEPTH = 4  # of archives inside archives


class Missing(UserError):
    """Files that RAW should hold and that are not among those unpacked so far."""


class Raw:
    """The files below RAW, and those of its archives once they are unpacked into `scratch`. RAW is only read."""

    def __init__(self, root: Path, scratch: Path) -> None:
        if not root.exists():
            raise UserError(f"there is no {root}")
        self.root, self.scratch = root, scratch
        self.files: dict[Path, tuple[str, ...]] = {}  # path -> its parts from the root's name on, in lower case
        self.walk()

    def walk(self) -> None:
        """List the files again."""
        self.files = {}
        for top in (self.root, self.scratch):
            for path in files_below(top):
                self.files[path] = tuple(part.lower() for part in (top.name, *path.relative_to(top).parts))

    def matching_files(self, *patterns: str, under: str | None = None) -> list[Path]:
        """Files whose last path components match a pattern (`images/*.png`), in any case, sorted by these components.

        `under` names a folder that must be among those above these components.
        """
        found: dict[str, Path] = {}
        for pattern in patterns:
            wanted = pattern.lower().split("/")
            for path, parts in self.files.items():
                if under is not None and under.lower() not in parts[: -len(wanted)]:
                    continue
                tail = parts[-len(wanted) :]
                if len(tail) == len(wanted) and all(map(fnmatchcase, tail, wanted)):
                    found.setdefault("/".join(tail), path)
        return [found[key] for key in sorted(found)]

    def one(self, *patterns: str) -> Path:
        """The first match of the first pattern that has any. Raises Missing if none has."""
        for pattern in patterns:
            found = self.matching_files(pattern)
            if found:
                return found[0]
        raise Missing(f"there is no {' or '.join(patterns)}")

    def archives(self) -> list[Path]:
        """The archives among the files."""
        return [path for path in self.files if path.name.lower().endswith(ARCHIVES)]

    def unpack(self) -> None:
        """Unpack every archive, and those inside, below `scratch`; what is unpacked already is kept."""
        done: set[Path] = set()
        for _ in range(DEPTH):
            waiting = [path for path in self.archives() if path not in done]
            for path in waiting:
                unpack(path, self.target(path))
                done.add(path)
            if not waiting:
                return
            self.walk()

    def target(self, archive: Path) -> Path:
        """The folder below `scratch` for the files of an archive."""
        top = self.root if self.root.is_dir() else archive.parent
        if archive.is_relative_to(self.scratch):
            top = self.scratch
        relative = archive.relative_to(top)
        ending = max((end for end in ARCHIVES if relative.name.lower().endswith(end)), key=len)
        return self.scratch / relative.parent / (relative.name[: -len(ending)] + ".files")


def files_below(root: Path) -> list[Path]:
    """All files but hidden ones and those of macOS's archiver; `root` itself if it is a file, none if it is absent."""
    if root.is_file():
        return [root]
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".") and "__MACOSX" not in path.parts
    )


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive into a folder that appears once it is complete. Raises UserError for a damaged archive."""
    if target.is_dir():
        return
    growing = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(growing)
        else:
            with tarfile.open(archive) as tarred:
                tarred.extractall(growing, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
        raise UserError(
            f"cannot unpack {archive} ({error}): the download is damaged or incomplete, repeat it"
        ) from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive} into {target.parent}: {error.strerror or error}") from error
    growing.rename(target)
