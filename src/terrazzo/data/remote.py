"""Data sets on object stores: what a data set names is copied once, and read from the copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from terrazzo.config.datasets import PREFIXES, FolderData
from terrazzo.data.spec import DatasetSpec
from terrazzo.data.threads import in_threads
from terrazzo.errors import UserError
from terrazzo.hub.cache import home
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.remote import RemoteFile, fetch, is_remote_path, joined, remote_files
from terrazzo.system.terminal import Console

INDEX = ".versions.json"


def with_local_root(data: FolderData, spec: DatasetSpec) -> FolderData:
    """The data set with a copy of its files where its `data_root` is an address. Raises UserError without files."""
    root = str(data.data_root)
    if not is_remote_path(root):
        return data
    prefix = spec.data_prefix if data.data_prefix is None else data.data_prefix
    parts = [prefix[key] for key in PREFIXES if key in prefix] + [str(data.ann_file)] * bool(str(data.ann_file))
    return replace(data, data_root=copied(root, [""] if spec.read is not None else parts or [""]))


def copied(address: str, parts: Iterable[str] = ("",)) -> Path:
    """A folder with the files below some parts of an address; those that have changed there are copied anew.

    It is in the cache, `data` below $TERRAZZO_HOME. Raises UserError where files cannot be copied.
    """
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:10]
    folder = make_folder(home() / "data" / f"{address.rstrip('/').rpartition('/')[2]}-{digest}")
    known = read_index(folder / INDEX)
    waiting: dict[str, RemoteFile] = {}
    for part in dict.fromkeys(without_pattern(part) for part in parts):
        for file in remote_files(joined(address, part)):
            is_file = Path(part).suffix and file.address.endswith(part)
            name = part if is_file else f"{part}/{file.name}".strip("/")
            if not is_inside(name):
                raise UserError(f"{file.address}: its name leads out of the folder of copies")
            if known.get(name) != list(file.version) or not (folder / name).is_file():
                waiting[name] = file
    if waiting:
        console = Console(soft_wrap=True)
        console.print(f"copying {len(waiting)} file{'s' * (len(waiting) != 1)} from {address} to {folder}")
        list(in_threads(lambda name: fetch(waiting[name].address, folder / name), waiting, "copy", console))
        known |= {name: list(file.version) for name, file in waiting.items()}
        write_whole(folder / INDEX, json.dumps(known))
    return folder


def read_index(path: Path) -> dict[str, list[object]]:
    """The versions of the files in a folder of copies."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def without_pattern(part: str) -> str:
    """The folder of a path that may have a pattern in it."""
    return "/".join(takewhile(lambda name: not set(name) & set("*?[{"), part.strip("/").split("/")))


def is_inside(name: str) -> bool:
    """Return whether a relative path stays below its folder."""
    return ".." not in name.split("/")
