"""Functions of files and folders, `FileClient`, and checkpoints; nothing is unpickled or downloaded."""

import gzip
import io
import json
import os
import pickle
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.checkpoint import find_weights, read_checkpoint
from terrazzo.system.extras import import_extra
from terrazzo.system.messages import LOGGER


def mkdir_or_exist(dir_name: Any, mode: int = 0o777) -> None:
    if dir_name != "":
        Path(dir_name).expanduser().mkdir(mode, parents=True, exist_ok=True)


def list_dir_or_file(
    dir_path: Any,
    list_dir: bool = True,
    list_file: bool = True,
    suffix: Any = None,
    recursive: bool = False,
    *_: Any,
    **__: Any,
) -> Iterator[str]:
    for path in sorted(Path(dir_path).glob("**/*" if recursive else "*")):
        name = path.relative_to(dir_path)
        wanted = list_dir and suffix is None if path.is_dir() else list_file and path.name.endswith(suffix or "")
        if wanted and not any(part.startswith(".") for part in name.parts):
            yield str(name)


def list_from_file(
    filename: Any, prefix: str = "", offset: int = 0, max_num: int = 0, encoding: str = "utf-8", *_: Any, **__: Any
) -> list[str]:
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
    **dict.fromkeys(("yaml", "yml"), (yaml.safe_load, yaml.safe_dump)),
    "npy": (lambda data: np.load(io.BytesIO(data)), None),
    **dict.fromkeys(("pkl", "pickle"), (lambda data: PlainUnpickler(io.BytesIO(data)).load(), pickle.dumps)),
}


def _format(file: Any, file_format: str | None) -> tuple[Any, Any]:
    kind = file_format or str(file).rpartition(".")[2]
    if kind not in FORMATS:
        raise TypeError(f"Unsupported format: {kind}")
    return FORMATS[kind]


def load(file: Any, file_format: str | None = None, *_: Any, **__: Any) -> Any:
    return _format(file, file_format)[0](file.read() if hasattr(file, "read") else Path(file).read_bytes())


def dump(obj: Any, file: Any = None, file_format: str | None = None, *_: Any, **__: Any) -> Any:
    text = _format(file, file_format)[1](obj)
    if hasattr(file, "write"):
        return file.write(text)
    return text if file is None else put(text if isinstance(text, bytes) else text.encode(), file)


def put(obj: bytes, filepath: Any, backend_args: Any = None) -> None:
    mkdir_or_exist(Path(filepath).parent)
    Path(filepath).write_bytes(obj)


def datafrombytes(content: bytes, backend: str = "numpy") -> Any:
    if backend != "nifti":
        return FORMATS[{"numpy": "npy"}.get(backend, backend)][0](content)
    packed, nibabel = content[:2] == b"\x1f\x8b", import_extra("nibabel", "medical", "NIfTI volumes")
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if packed else content).get_fdata()


def symlink(src: Any, dst: Any, overwrite: bool = True) -> None:
    Path(dst).unlink(missing_ok=overwrite)
    Path(dst).symlink_to(src)


class FileClient:
    """Files on this machine."""

    name = "disk"
    infer_client = classmethod(lambda cls, file_client_args=None, uri=None: cls(**(file_client_args or {})))
    register_backend = staticmethod(lambda *args, **kwargs: lambda cls: cls)

    def __init__(self, backend: Any = None, prefix: Any = None, **kwargs: Any) -> None:
        self.backend_args = kwargs

    def __getattr__(self, name: str) -> Any:
        if name in TABLE:
            return TABLE[name]
        raise AttributeError(name)


# Weights


class MissingFile(UserError, OSError):
    """Weights that are neither a file nor in a cache."""


MISSING: list[list[str]] = []  # for each model that is being built, the files that it asks for in vain


@contextmanager
def without_weights() -> Iterator[list[str]]:
    """Give a model's author's code empty weights for files that are not there; their names are in the list.

    Raises MissingFile where it cannot go on without them.
    """
    MISSING.append([])
    try:
        yield MISSING[-1]
    except Exception:
        if MISSING[-1]:
            find_file(MISSING[-1][0])
        raise
    finally:
        MISSING.pop()


def find_file(name: str) -> Path:
    try:
        return find_weights(str(name))
    except UserError as problem:
        raise MissingFile(str(problem)) from None


def _load_checkpoint(filename: str, map_location: Any = None, logger: Any = None) -> dict[str, Any]:
    try:
        weights = read_checkpoint(find_file(filename)).weights
    except MissingFile:
        if not MISSING:
            raise
        MISSING[-1].append(str(filename))
        weights = {}
    return {"state_dict": OrderedDict(weights), "meta": {}}


def _load_checkpoint_with_prefix(prefix: str, filename: str, map_location: Any = None) -> dict[str, Tensor]:
    start, found = prefix.rstrip(".") + ".", _load_checkpoint(filename)["state_dict"]
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}


def load_state_dict(module: nn.Module, state_dict: Any, strict: bool = False, logger: Any = None) -> None:
    own = module.state_dict()
    fitting = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict(fitting, strict=False)
    if (wrong := (set(state_dict) | set(own)) - set(fitting)) and (state_dict or not MISSING):
        text = f"weights that do not fit: {', '.join(sorted(wrong)[:8])}{' ...' * (len(wrong) > 8)}"
        if strict:
            raise RuntimeError(text)
        LOGGER.warning(text)


def load_checkpoint(
    model: nn.Module, filename: str, map_location: Any = None, strict: bool = False, logger: Any = None,
    revise_keys: Any = ((r"^module\.", ""),),
) -> dict[str, Any]:  # fmt: skip
    checkpoint = _load_checkpoint(filename)
    weights = checkpoint["state_dict"]
    for pattern, replacement in revise_keys:
        weights = OrderedDict((re.sub(pattern, replacement, name), value) for name, value in weights.items())
    load_state_dict(model, weights, strict, logger)
    return checkpoint


def save_checkpoint(model: Any, filename: str, optimizer: Any = None, meta: Any = None, *_: Any, **__: Any) -> None:
    """Write the weights of a model, or a checkpoint."""
    if isinstance(model, nn.Module):
        model = {"state_dict": TABLE["weights_to_cpu"](model.state_dict()), "meta": meta or {}}
    Path(filename).parent.mkdir(parents=True, exist_ok=True)
    torch.save(model, filename)


# functions, most of which are methods of FileClient too; those of 1.x take a backend, which is always the local one
TABLE: dict[str, Any] = {
    "get": lambda filepath, *_, **__: Path(filepath).read_bytes(),
    "get_text": lambda filepath, encoding="utf-8", backend_args=None: Path(filepath).read_text(encoding=encoding),
    "put": put,
    "put_text": lambda obj, filepath, encoding="utf-8", backend_args=None: put(
        obj.encode(encoding if isinstance(encoding, str) else "utf-8"),
        filepath,  # a method has it, a function has not
    ),
    "join_path": lambda filepath, *filepaths, backend_args=None: os.fspath(Path(filepath, *filepaths)),
    "get_local_path": lambda filepath, backend_args=None: nullcontext(filepath),
    "list_dir_or_file": list_dir_or_file,
    **{
        test.__name__: lambda filepath, backend_args=None, test=test: test(filepath)
        for test in (os.path.exists, os.path.isdir, os.path.isfile)
    },
    "copyfile": lambda src, dst, backend_args=None: shutil.copy(src, dst),
    "remove": lambda filepath, backend_args=None: Path(filepath).unlink(),
    "scandir": lambda dir_path, suffix=None, recursive=False, case_sensitive=True: list_dir_or_file(
        dir_path, False, True, suffix, recursive
    ),
    "get_file_backend": lambda *_, **__: FileClient(),
    **dict.fromkeys(("LocalBackend", "HardDiskBackend", "BaseStorageBackend"), FileClient),
    "weights_to_cpu": lambda state_dict: OrderedDict((name, value.cpu()) for name, value in state_dict.items()),
    "CheckpointLoader": type("CheckpointLoader", (), {"load_checkpoint": staticmethod(_load_checkpoint)}),
    "_load_checkpoint_to_model": load_state_dict,
    "get_state_dict": lambda module, destination=None, prefix="", keep_vars=False: module.state_dict(
        prefix=prefix, keep_vars=keep_vars
    ),
    "mmengine.save_checkpoint": lambda checkpoint, filename, *_, **__: save_checkpoint(checkpoint, filename),
}
