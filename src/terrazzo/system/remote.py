"""Files on object stores, by their addresses; fsspec reads and writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from terrazzo.errors import UserError, first_line, is_out_of_memory
from terrazzo.system.extras import import_extra

ADDRESS = re.compile(r"(s3|gs|gcs|hf|memory)://")


class RemoteFile(NamedTuple):
    """A file on a store: its address, its name below what was listed, and what changes when it does."""

    address: str
    name: str
    version: tuple[Any, ...]  # size in bytes, and checksum or time where the store tells


def is_remote_path(source: object) -> bool:
    """Return whether something is an address on an object store."""
    return isinstance(source, str) and ADDRESS.match(source) is not None


def joined(address: str, *names: str) -> str:
    """An address below another one."""
    return "/".join([address.rstrip("/"), *(name.strip("/") for name in names if name not in ("", "."))])


def remote_files(address: str) -> list[RemoteFile]:
    """The files that an address names: itself, those below it, or those that match its pattern, in order.

    Raises UserError where there are none, or the store cannot be reached.
    """
    with opened(address) as (store, path):
        if "*" in path:
            found, base = store.glob(path, detail=True), str(PurePosixPath(path.partition("*")[0] + "x").parent)
        elif store.isdir(path):
            found, base = store.find(path, detail=True), path
        else:
            found, base = {path: store.info(path)}, str(PurePosixPath(path).parent)
        files = [
            RemoteFile(store.unstrip_protocol(name), str(name)[len(base) :].strip("/"), version_of(facts))
            for name, facts in sorted(found.items())
            if facts["type"] == "file"
        ]
    if not files:
        raise UserError(f"there is no file at {address}")
    return files


def version_of(facts: dict[str, Any]) -> tuple[Any, ...]:
    """Size and checksum, or time, of a file, by what a store tells about it: they change when it does."""
    known = (facts.get(key) for key in ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "created"))
    return facts.get("size"), str(next((value for value in known if value), ""))


def fetch(address: str, target: Path) -> Path:
    """Copy a file to this computer. Raises UserError where that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with opened(address) as (store, path):
            store.get_file(path, str(temporary))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def put(source: Path, address: str) -> None:
    """Copy a file of this computer to an address. Raises UserError where that fails."""
    with opened(address) as (store, path):
        parent = str(PurePosixPath(path).parent)
        if not store.exists(parent) and "/" in parent.strip("/"):  # a bucket is never made
            store.makedirs(parent, exist_ok=True)
        store.put_file(str(source), path)


@contextmanager
def opened(address: str) -> Iterator[tuple[Any, str]]:
    """The store of an address, and the path on it; its errors inside become UserErrors that name the address."""
    import_extra("fsspec", "remote", "addresses on object stores")
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(address)
    except UserError:
        raise
    except ImportError as problem:
        scheme = address.partition(":")[0]
        raise UserError(f'{scheme}:// addresses: {first_line(problem)}: pip install "terrazzo[remote]"') from None
    except FileNotFoundError:
        raise UserError(f"there is no file or folder {address}") from None
    except Exception as problem:  # each store has its own
        if is_out_of_memory(problem):
            raise
        raise UserError(f"cannot reach {address}: {type(problem).__name__}: {first_line(problem)}") from None
