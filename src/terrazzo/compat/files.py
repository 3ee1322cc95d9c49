"""Functions of files and folders, and `FileClient`."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml


def mkdir_or_exist(dir_name: Any, mode: int = 0o777) -> None:
    """Make a folder and those above it, unless the name is empty."""
    if dir_name != "":
        Path(dir_name).expanduser().mkdir(mode, parents=True, exist_ok=True)


def list_dir_or_file(
    dir_path: Any, list_dir: bool = True, list_file: bool = True, suffix: Any = None, recursive: bool = False, **_: Any
) -> Iterator[str]:
    """Names of what a folder holds, relative to it; nothing hidden."""
    for path in sorted(Path(dir_path).glob("**/*" if recursive else "*")):
        name = path.relative_to(dir_path)
        wanted = list_dir and suffix is None if path.is_dir() else list_file and path.name.endswith(suffix or "")
        if wanted and not any(part.startswith(".") for part in name.parts):
            yield str(name)


def scandir(dir_path: Any, suffix: Any = None, recursive: bool = False, case_sensitive: bool = True) -> Iterator[str]:
    return list_dir_or_file(dir_path, list_dir=False, suffix=suffix, recursive=recursive)


def list_from_file(
    filename: Any, prefix: str = "", offset: int = 0, max_num: int = 0, encoding: str = "utf-8", **_: Any
) -> list[str]:
    """The lines of a file without their ends, after `offset`, at most `max_num`."""
    lines = Path(filename).read_text(encoding=encoding).splitlines()[offset:]
    return [prefix + line for line in (lines[:max_num] if max_num > 0 else lines)]


class PlainUnpickler(pickle.Unpickler):
    """A reader of pickles of plain values and arrays; anything else is an error, so nothing runs."""

    def find_class(self, module: str, name: str) -> Any:
        array = module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar")
        if array or (module, name) in (("collections", "OrderedDict"), ("builtins", "set")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the file holds a {module}.{name}, which is not read: it could run code")


# suffix -> how its bytes become values, and how values become its text
FORMATS: dict[str, tuple[Any, Any]] = {
    "json": (json.loads, lambda obj: json.dumps(obj, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))),
    "yaml": (yaml.safe_load, yaml.safe_dump),
    "pkl": (lambda content: PlainUnpickler(io.BytesIO(content)).load(), pickle.dumps),
}
FORMATS |= {"yml": FORMATS["yaml"], "pickle": FORMATS["pkl"]}


def format_of(file: Any, file_format: str | None) -> tuple[Any, Any]:
    kind = file_format or str(file).rpartition(".")[2]
    if kind not in FORMATS:
        raise TypeError(f"Unsupported format: {kind}")
    return FORMATS[kind]


def load(file: Any, file_format: str | None = None, **_: Any) -> Any:
    """Values of a JSON or YAML file, or of a pickle of plain ones. Raises TypeError for another format."""
    return format_of(file, file_format)[0](file.read() if hasattr(file, "read") else Path(file).read_bytes())


def dump(obj: Any, file: Any = None, file_format: str | None = None, **_: Any) -> Any:
    """Write values as JSON, YAML or a pickle, by the file's suffix; without a file return the text."""
    text = format_of(file, file_format)[1](obj)
    if file is None:
        return text
    if hasattr(file, "write"):
        file.write(text)
    else:
        put(text if isinstance(text, bytes) else text.encode(), file)
    return None


def put(obj: bytes, filepath: Any, *_: Any) -> None:
    """Write a file, and make its folder."""
    mkdir_or_exist(Path(filepath).parent)
    Path(filepath).write_bytes(obj)


def get(filepath: Any, *_: Any, **__: Any) -> bytes:
    return Path(filepath).read_bytes()


def get_text(filepath: Any, encoding: str = "utf-8", *_: Any, **__: Any) -> str:
    return Path(filepath).read_text(encoding=encoding)


def datafrombytes(content: bytes, backend: str = "numpy") -> Any:
    """The array of a file's bytes: NIfTI, .npy, or a pickle of plain values."""
    if backend == "pickle":
        return PlainUnpickler(io.BytesIO(content)).load()
    import numpy as np

    if backend == "numpy":
        return np.load(io.BytesIO(content))
    if backend != "nifti":
        raise ValueError(f"unsupported backend: {backend}")
    import gzip

    from terrazzo.system.extras import import_extra

    nibabel = import_extra("nibabel", "medical", "NIfTI volumes")
    packed = content[:2] == b"\x1f\x8b"
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if packed else content).get_fdata()


def symlink(src: Any, dst: Any, overwrite: bool = True, **kwargs: Any) -> None:
    if overwrite and os.path.lexists(dst):
        Path(dst).unlink()
    Path(dst).symlink_to(src, **kwargs)


def join_path(filepath: Any, *paths: Any, **_: Any) -> str:
    return os.fspath(Path(filepath, *paths))


def get_local_path(filepath: Any, *_: Any, **__: Any) -> Any:
    return nullcontext(filepath)


class FileClient:
    """Files on this machine."""

    name = "disk"
    get, get_text, put = staticmethod(get), staticmethod(get_text), staticmethod(put)
    join_path, get_local_path = staticmethod(join_path), staticmethod(get_local_path)
    exists, isdir, isfile = staticmethod(os.path.exists), staticmethod(os.path.isdir), staticmethod(os.path.isfile)
    remove, list_dir_or_file = staticmethod(os.remove), staticmethod(list_dir_or_file)

    def __init__(self, backend: Any = None, prefix: Any = None, **kwargs: Any) -> None:
        self.backend_args = kwargs

    @classmethod
    def infer_client(cls, file_client_args: Any = None, uri: Any = None) -> FileClient:
        return cls(**(file_client_args or {}))

    @staticmethod
    def put_text(obj: str, filepath: Any, encoding: str = "utf-8") -> None:
        put(obj.encode(encoding), filepath)

    @staticmethod
    def register_backend(*args: Any, **kwargs: Any) -> Any:
        return lambda cls: cls


LocalBackend = HardDiskBackend = BaseStorageBackend = FileClient
exists, isdir, isfile, remove = FileClient.exists, FileClient.isdir, FileClient.isfile, FileClient.remove


def get_file_backend(*args: Any, **kwargs: Any) -> FileClient:
    return FileClient()
