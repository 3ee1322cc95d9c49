"""Files inside shards, tar archives and parquet files, by paths such as `train-00.tar/000012.jpg`, read in place."""

from __future__ import annotations

import tarfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra

SHARDS = (".tar", ".parquet")
LOCK = threading.Lock()


def shard_of(path: Path) -> Path | None:
    """The shard that a path leads into; None for a path of its own."""
    for parent in path.parents:
        if parent.suffix.lower() in SHARDS:
            return parent if parent.is_file() else None
    return None


def read_member(shard: Path, path: Path) -> bytes:
    """The content of a file in a shard. Raises UserError where it cannot be read."""
    name = path.relative_to(shard).as_posix()
    if shard.suffix.lower() == ".parquet":
        try:
            group, row, column = parts_of(name)
            found = cells(shard, version(shard), group, column)[row]
        except UserError:
            raise
        except (ValueError, LookupError):  # the first of pyarrow too
            raise UserError(f"{shard} has no file {name}") from None
        if found is None:
            raise UserError(f"{path}: there is no picture in this row")
        return found
    start, size = tar_members(shard, version(shard)).get(name, (0, None))
    if size is None:
        raise UserError(f"{shard} has no file {name}")
    if start + size > shard.stat().st_size:
        raise UserError(f"{path}: the archive ends inside it: it is truncated; copy it again")
    try:
        with shard.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as problem:
        raise UserError(f"cannot read {shard}: {problem.strerror}") from None


def version(shard: Path) -> tuple[int, int]:
    """The size and the time of a shard, which change when it does."""
    found = shard.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def tar_members(shard: Path, _: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The place of each regular file in an uncompressed tar archive, and its size. Raises UserError for other files."""
    try:
        with tarfile.open(shard, "r:") as archive:
            files = (member for member in archive if member.isreg())
            return {file.name.removeprefix("./"): (file.offset_data, file.size) for file in files}
    except (tarfile.TarError, OSError) as problem:
        raise UserError(f"cannot read {shard} as a tar archive without compression: {problem}") from None


def row_name(group: int, row: int, column: str, suffix: str) -> str:
    """The path of a cell inside a parquet file."""
    return f"{group:05d}/{row:06d}.{column}{suffix}"


def parts_of(name: str) -> tuple[int, int, str]:
    """The group, the row and the column of a cell."""
    group, _, file = name.partition("/")
    row, _, rest = file.partition(".")
    return int(group), int(row), rest.rpartition(".")[0]


@lru_cache(maxsize=512)
def open_parquet(shard: Path, _: tuple[int, int]) -> Any:
    """An open parquet file. Raises UserError for another one, and where the library is missing."""
    parquet = import_extra("pyarrow.parquet", "parquet", "parquet files")
    try:
        return parquet.ParquetFile(shard)
    except Exception as problem:  # of pyarrow, which is imported here alone
        raise UserError(f"cannot read {shard}: {problem}") from None


@lru_cache(maxsize=4)  # the images and labels of two groups of rows
def read_cells(shard: Path, key: tuple[int, int], group: int, column: str) -> list[bytes | None]:
    """The pictures in a column of a group of rows, encoded."""
    try:
        rows = open_parquet(shard, key).read_row_group(group, columns=[column]).column(column).to_pylist()
    except OSError as problem:
        raise UserError(f"cannot read {shard}: {problem}") from None
    found = [row.get("bytes") if isinstance(row, dict) else row for row in rows]
    return [cell if isinstance(cell, bytes) else None for cell in found]


def cells(shard: Path, key: tuple[int, int], group: int, column: str) -> list[bytes | None]:
    """The same, in one thread at a time, as the library reads with several itself."""
    with LOCK:
        return read_cells(shard, key, group, column)
