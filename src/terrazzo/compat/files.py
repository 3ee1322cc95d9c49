"""Functions of files and folders, and `FileClient`."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


def mkdir_or_exist(dir_name: Any, mode: int = 0o777) -> None:
    """Make a folder and those above it, unless the name is empty."""
    if dir_name != "":
        Path(dir_name).expanduser().mkdir(mode, parents=True, exist_ok=True)


def check_file_exist(filename: Any, msg_tmpl: str = 'file "{}" does not exist') -> None:
    if not Path(filename).is_file():
        raise FileNotFoundError(msg_tmpl.format(filename))


def is_filepath(x: Any) -> bool:
    return isinstance(x, (str, Path))


def fopen(filepath: Any, *args: Any, **kwargs: Any) -> Any:
    return open(filepath, *args, **kwargs)


def symlink(src: Any, dst: Any, overwrite: bool = True, **kwargs: Any) -> None:
    if overwrite and os.path.lexists(dst):
        os.remove(dst)
    os.symlink(src, dst, **kwargs)


def list_dir_or_file(
    dir_path: Any, list_dir: bool = True, list_file: bool = True, suffix: Any = None, recursive: bool = False, **_: Any
) -> Iterator[str]:
    """What a folder holds, relative to it; nothing hidden."""
    pattern = "**/*" if recursive else "*"
    for path in sorted(Path(dir_path).glob(pattern)):
        name = path.relative_to(dir_path)
        if any(part.startswith(".") for part in name.parts):
            continue
        if (path.is_dir() and list_dir and suffix is None) or (
            path.is_file() and list_file and (suffix is None or path.name.endswith(suffix))
        ):
            yield str(name)


def scandir(dir_path: Any, suffix: Any = None, recursive: bool = False, case_sensitive: bool = True) -> Iterator[str]:
    return list_dir_or_file(dir_path, list_dir=False, suffix=suffix, recursive=recursive)


def list_from_file(
    filename: Any, prefix: str = "", offset: int = 0, max_num: int = 0, encoding: str = "utf-8", **kwargs: Any
) -> list[str]:
    """The lines of a file without their ends, after `offset`, at most `max_num`."""
    lines = Path(filename).read_text(encoding=encoding).splitlines()[offset:]
    return [prefix + line.rstrip("\n\r") for line in (lines[:max_num] if max_num > 0 else lines)]


def dict_from_file(filename: Any, key_type: Any = str, encoding: str = "utf-8", **kwargs: Any) -> dict[Any, Any]:
    rows = [line.split(" ") for line in list_from_file(filename, encoding=encoding)]
    return {key_type(row[0]): row[1] if len(row) == 2 else row[1:] for row in rows}


def load(file: Any, file_format: str | None = None, **kwargs: Any) -> Any:
    """What a JSON or YAML file holds; a pickle is not read. Raises TypeError for another format."""
    kind = file_format or str(file).rpartition(".")[2]
    if kind == "json":
        text = file.read() if hasattr(file, "read") else Path(file).read_text(encoding="utf-8")
        return json.loads(text)
    if kind in ("yaml", "yml"):
        text = file.read() if hasattr(file, "read") else Path(file).read_text(encoding="utf-8")
        return yaml.safe_load(text)
    if kind in ("pkl", "pickle"):
        content = file.read() if hasattr(file, "read") else Path(file).read_bytes()
        return PlainUnpickler(io.BytesIO(content)).load()
    raise TypeError(f"Unsupported format: {kind}")


class PlainUnpickler(pickle.Unpickler):
    """A reader of pickles of plain values and arrays; anything else is an error, so nothing runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar")) or (
            (module, name) in (("collections", "OrderedDict"), ("builtins", "set"))
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the file holds a {module}.{name}, which is not read: it could run code")


def dump(obj: Any, file: Any = None, file_format: str | None = None, **kwargs: Any) -> Any:
    """Write values as JSON, YAML or a pickle, by the file's suffix; without a file return the text."""
    kind = file_format or str(file).rpartition(".")[2]
    if kind == "json":
        text: Any = json.dumps(obj, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
    elif kind in ("yaml", "yml"):
        text = yaml.safe_dump(obj)
    else:
        text = pickle.dumps(obj)
    if file is None:
        return text
    if hasattr(file, "write"):
        file.write(text)
        return None
    mkdir_or_exist(Path(file).parent)
    Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return None


class FileClient:
    """Files on this machine."""

    name = "disk"

    def __init__(self, backend: Any = None, prefix: Any = None, **kwargs: Any) -> None:
        self.backend_args = kwargs

    @classmethod
    def infer_client(cls, file_client_args: Any = None, uri: Any = None) -> FileClient:
        return cls(**(file_client_args or {}))

    @classmethod
    def parse_uri_prefix(cls, uri: Any) -> str | None:
        return str(uri).partition("://")[0] if "://" in str(uri) else None

    @staticmethod
    def register_backend(*args: Any, **kwargs: Any) -> Any:
        return lambda cls: cls

    @staticmethod
    def get(filepath: Any, *args: Any, **kwargs: Any) -> bytes:
        return Path(filepath).read_bytes()

    @staticmethod
    def get_text(filepath: Any, encoding: str = "utf-8", *args: Any, **kwargs: Any) -> str:
        return Path(filepath).read_text(encoding=encoding)

    @staticmethod
    def put(obj: bytes, filepath: Any, *args: Any) -> None:
        mkdir_or_exist(Path(filepath).parent)
        Path(filepath).write_bytes(obj)

    @staticmethod
    def put_text(obj: str, filepath: Any, encoding: str = "utf-8") -> None:
        FileClient.put(obj.encode(encoding), filepath)

    @staticmethod
    def exists(filepath: Any, *args: Any, **kwargs: Any) -> bool:
        return Path(filepath).exists()

    @staticmethod
    def isdir(filepath: Any, *args: Any, **kwargs: Any) -> bool:
        return Path(filepath).is_dir()

    @staticmethod
    def isfile(filepath: Any, *args: Any, **kwargs: Any) -> bool:
        return Path(filepath).is_file()

    @staticmethod
    def remove(filepath: Any) -> None:
        Path(filepath).unlink()

    @staticmethod
    def join_path(filepath: Any, *paths: Any, **kwargs: Any) -> str:
        return os.path.join(filepath, *paths)

    @staticmethod
    @contextmanager
    def get_local_path(filepath: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield filepath

    list_dir_or_file = staticmethod(list_dir_or_file)


LocalBackend = HardDiskBackend = BaseStorageBackend = FileClient
get, get_text, put, put_text = FileClient.get, FileClient.get_text, FileClient.put, FileClient.put_text
exists, isdir, isfile, join_path = FileClient.exists, FileClient.isdir, FileClient.isfile, FileClient.join_path
get_local_path, remove = FileClient.get_local_path, FileClient.remove


def get_file_backend(*args: Any, **kwargs: Any) -> FileClient:
    return FileClient()
