"""The images, scenes and videos that a command line names, and the names of their results."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from terrazzo.data.pairs import ending_of
from terrazzo.errors import UserError
from terrazzo.inference.video.reading import is_live
from terrazzo.system.files import OutputNames
from terrazzo.system.remote import fetch, is_remote_path, remote_files
from terrazzo.transforms.mosaic import is_mosaic
from terrazzo.transforms.opening import check_regular
from terrazzo.transforms.scenes import is_remote
from terrazzo.transforms.tiff import TIFF_SUFFIXES

Source = Path | str  # a str is an address


@dataclass(frozen=True)
class Item:
    """One source, and where its results go: `folder` is below that of all results."""

    source: Source
    folder: Path
    stem: str
    version: tuple[Any, ...] = ()  # what changes when a file on an object store does

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.source).name


def find_items(sources: Sequence[str], out: Path, suffixes: Sequence[str], every: int = 1) -> list[Item]:
    """Each source with the folder and the stem of its results; folders are searched for `suffixes` recursively.

    A source may also be a pattern such as `drive/**/*.jpg`, the address of a scene, or a folder of adjacent tiles, one
    scene. Of folders and patterns `every` so many-th file is taken. Hidden folders and `out` itself are skipped. Raises
    UserError for a missing source, and for a folder without images.
    """
    names: dict[Path, OutputNames] = {}
    items = []
    for source in sources:
        remote = on_store(source, suffixes) if is_remote_path(source) else {}
        for path, folder in list(remote or found_at(source, out, suffixes))[::every]:
            stem = names.setdefault(folder, OutputNames(out / folder)).stem(Path(path))
            items.append(Item(path, folder, stem, remote.get((path, folder), ())))
    return items


def on_store(address: str, suffixes: Sequence[str]) -> dict[tuple[Source, Path], tuple[Any, ...]]:
    """The files at an address on an object store, each with the subfolder for its results, and their versions."""
    found: dict[tuple[Source, Path], tuple[Any, ...]] = {
        (file.address, Path(file.name).parent): file.version
        for file in remote_files(address)
        if ending_of(file.name, (*suffixes, ".vrt")) is not None
    }
    if not found:
        raise UserError(f"{address} contains no image or video ({', '.join(suffixes)})")
    return found


def is_fetched(source: Source) -> bool:
    """Return whether a source is copied to this computer as a whole, rather than read where it is."""
    is_read_in_place = is_remote(str(source)) and find_spec("rasterio") is not None
    return is_remote_path(source) and not (is_read_in_place and Path(source).suffix.lower() in (*TIFF_SUFFIXES, ".vrt"))


@contextmanager
def as_local(source: Source) -> Iterator[Source]:
    """The source itself, or a copy of it on this computer inside; errors name the source all the same."""
    if not is_fetched(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="terrazzo-") as scratch:
        path = fetch(str(source), Path(scratch) / Path(source).name)
        try:
            yield path
        except UserError as problem:
            raise UserError(str(problem).replace(str(path), str(source))) from None


def found_at(source: str, out: Path, suffixes: Sequence[str]) -> list[tuple[Source, Path]]:
    """The files of one source, each with the subfolder for its results."""
    path = Path(source)
    if is_live(source) or is_remote(source):
        return [(source, Path())]
    if path.is_dir() and is_mosaic(path):
        return [(path, Path())]
    if path.is_dir():
        inside = [file for file in sorted(path.rglob("*")) if is_wanted(file, path, out, suffixes)]
        if not inside:
            raise UserError(f"the folder {path} contains no image or video ({', '.join(suffixes)})")
        return [(file, file.parent.relative_to(path)) for file in inside]
    if path.exists():
        check_regular(path)
        return [(path, Path())]
    matches = map(Path, glob.glob(source, recursive=True))  # noqa: PTH207 - of any root
    files = sorted(match for match in matches if match.is_file())
    if not files:
        raise UserError(f"there is no file or folder {source}")
    return [(file, Path()) for file in files]


def is_wanted(file: Path, root: Path, out: Path, suffixes: Sequence[str]) -> bool:
    """Report whether a file below `root` is an input."""
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    result = out.resolve() in file.resolve().parents and out.resolve() != root.resolve()
    return ending_of(file.name, suffixes) is not None and not hidden and not result and file.is_file()
