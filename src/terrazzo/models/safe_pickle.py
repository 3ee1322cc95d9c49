"""Reading pickles that may be malicious: they yield tensors and plain containers, and nothing in them is run.

torch.load(weights_only=True) does not suffice: it refuses pickle protocol 4 and objects of other packages that are put
together item by item, needs every name in advance, and accepts tensors far larger than their file.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import re
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from terrazzo.errors import UserError, first_line, is_out_of_memory

_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # Python's own: see SafeUnpickler

# The names that a checkpoint may use: those of tensors and plain containers.
ALLOWED_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}
# Objects of these packages are records of the run that saved the file; inert stand-ins replace them.
SKIPPED_PACKAGES = (
    "mmcv", "mmengine", "mmseg", "mmdet", "mmcls", "mmpretrain", "addict", "numpy", "argparse", "collections",
    "pathlib", "datetime",
)  # fmt: skip
# They also replace the names that construct such objects: plain types, text as bytes, attributes of stand-ins.
SKIPPED_GLOBALS = {
    "copyreg": ("_reconstructor",),
    "_codecs": ("encode",),
    "builtins": (
        "getattr", "object", "set", "frozenset", "int", "long", "float", "complex", "bool", "str", "unicode", "bytes",
        "bytearray", "list", "tuple", "dict", "slice", "range",
    ),
}  # fmt: skip
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # names that pickles of protocol 2 use


class Skipped:
    """A stand-in for an object in a checkpoint that is not used here; it accepts any call and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Skipped:
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class SafeUnpickler(_Unpickler):
    """An unpickler that constructs tensors and plain containers only.

    Unlike C's, Python's own unpickler can restrict which objects are called and which have attributes set. `sizes` are
    the bytes of each record of a zip file, `length` those of the whole file.
    """

    dispatch: ClassVar[Any] = dict(_Unpickler.dispatch)
    sizes: ClassVar[dict[str, int] | None] = None
    length: ClassVar[int] = 0

    def allow(self, function: Any) -> None:
        """Raise UnpicklingError unless a function may be called."""
        if not (isinstance(function, Skipped) or any(function is known for known in CALLABLE)):
            raise pickle.UnpicklingError(f"it calls {named(function)}, which makes neither a tensor nor a container")

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        self.allow(kind)
        super()._instantiate(kind, arguments)

    def check_storage(self, identity: Any) -> None:
        """Refuse a storage that claims to be longer than its data in the file: torch would read beyond it."""
        types = [type(item) for item in identity] if isinstance(identity, tuple) else []
        view = identity[5] if types[5:] else None
        if types[:1] + types[2:5] != [str, str, str, int] or (view and [*map(type, view)] != [str, int, int]):
            raise pickle.UnpicklingError("it has a reference that is not a storage")
        needed = identity[4] * getattr(identity[1], "dtype", torch.uint8).itemsize
        held = self.length if self.sizes is None else self.sizes.get(f"data/{identity[2]}", 0)
        if not 0 <= needed <= held:
            raise pickle.UnpicklingError(f"it has a storage of {needed} bytes, which are not in the file")

    def find_class(self, module: str, name: str) -> Any:
        module = PYTHON_2.get(module, module)
        if (module, name) in ALLOWED_GLOBALS:
            return ALLOWED_GLOBALS[module, name]
        if module in ("torch", "torch.storage") and (name in DTYPES or re.fullmatch(r"\w+Storage", name)):
            return getattr(torch.storage if module == "torch.storage" else torch, name)
        if module.partition(".")[0] in SKIPPED_PACKAGES or name in SKIPPED_GLOBALS.get(module, ()):
            return Skipped
        asked = shorten(f"{module}.{name}")
        raise pickle.UnpicklingError(f"it asks for {asked}, which is neither a tensor nor a container")


def named(value: Any) -> str:
    """Describe a value in a few words: to write out one whose parts are shared takes exponential time."""
    name = getattr(value, "__qualname__", None)
    return shorten(name) if isinstance(name, str) else f"a {type(value).__name__}"


def shorten(text: str) -> str:
    """The beginning of a text, on one line, without characters that cannot be printed."""
    clean = "".join(character if character.isprintable() else " " for character in text[:MOST_SHOWN])
    return clean + ("..." if len(text) > MOST_SHOWN else "")


def check_target(target: Any) -> None:
    """Refuse an object whose attributes must not be set."""
    if not isinstance(target, (Skipped, collections.OrderedDict)):
        raise pickle.UnpicklingError(f"it sets attributes of {named(target)}")


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse what a dict or a set must not hold."""
    for key in keys:
        check_key(key)


def check_key(key: Any, depth: int = 0) -> None:
    """Refuse nested tuples as keys: hashing one whose elements are shared takes exponential time."""
    if not isinstance(key, tuple):
        return
    if depth > 1 or len(key) > 64:
        raise pickle.UnpicklingError("it has a key of nested tuples")
    for item in key:
        check_key(item, depth + 1)


def check_expansion(value: Any) -> None:
    """Refuse a tensor that is far larger than its storage: a copy would fill the memory."""
    if not isinstance(value, Tensor):
        return
    length = math.prod(value.shape) * value.element_size()
    if length > value.untyped_storage().nbytes() + MOST_EXPANDED:
        raise pickle.UnpicklingError(f"it has a tensor of {length} bytes, which are not in the file")


# instructions of a pickle that are checked first, against what is on the stack
CHECKS: dict[str, Callable[[Any], None]] = {
    "reduce": lambda unpickler: unpickler.allow(unpickler.stack[-2]),
    "newobj": lambda unpickler: unpickler.allow(unpickler.stack[-2]),
    "newobj_ex": lambda unpickler: unpickler.allow(unpickler.stack[-3]),
    "build": lambda unpickler: check_target(unpickler.stack[-2]),
    "setitem": lambda unpickler: check_key(unpickler.stack[-2]),
    "setitems": lambda unpickler: check_keys(unpickler.stack[::2]),
    "dict": lambda unpickler: check_keys(unpickler.stack[::2]),
    "additems": lambda unpickler: check_keys(unpickler.stack),
    "frozenset": lambda unpickler: check_keys(unpickler.stack),
    "binpersid": lambda unpickler: unpickler.check_storage(unpickler.stack[-1]),
}


def checked(name: str) -> Callable[[Any], None]:
    """Return the unpickler's method for an instruction, with the check before it."""
    check, load = CHECKS[name], getattr(_Unpickler, f"load_{name}")

    def run(unpickler: Any) -> None:
        check(unpickler)
        load(unpickler)
        if name == "reduce":
            check_expansion(unpickler.stack[-1])

    return run


SafeUnpickler.dispatch |= {getattr(pickle, name.upper())[0]: checked(name) for name in CHECKS}
MOST_EXPANDED = 2**28  # bytes
MOST_SHOWN = 200  # characters of a name or of torch's messages
MOST_VALUES = 1_000_000  # of containers, each counted as often as it is shared
DEEPEST = 100  # levels of containers or modules
LARGEST = 2**63  # numbers beyond it are not records of a run
MOST_MODULES = 100_000  # of a program
CALLABLE = [*ALLOWED_GLOBALS.values(), Skipped]
DTYPES = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}


def load_pickle(path: Path) -> Any:
    """The content of a file of torch.save, with a stand-in for everything that is neither a tensor nor a container.

    From a TorchScript file only the weights are read. Raises UserError for a damaged or an unsafe file.
    """
    try:
        sizes = record_sizes(path)
        if sizes is not None:
            check_sums(path)
        if sizes is not None and "constants.pkl" in sizes:  # torch.load would run it
            return program_weights(path, sizes)
        unpickler = type("Unpickler", (SafeUnpickler,), {"sizes": sizes, "length": path.stat().st_size})
        module = types.SimpleNamespace(
            Unpickler=unpickler, load=lambda file, **options: unpickler(file, **options).load(), __name__=__name__
        )
        content = torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
        return plain_copy(content, iter(range(MOST_VALUES)))
    except pickle.UnpicklingError as problem:
        raise UserError(f"{path} is refused as a checkpoint: {problem}. Nothing in it was executed.") from None
    except Exception as problem:  # torch reports a damaged file in a dozen ways, none of them documented
        if is_out_of_memory(problem):
            raise
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut off ({shorten(first_line(problem))})"
        ) from None


def plain_copy(value: Any, left: Iterator[int], depth: int = 0) -> Any:
    """A file's content as new dicts, lists and tuples with texts that can be written and numbers of 64 bits.

    Attributes that the file set, such as another `items`, are left behind. Raises UnpicklingError for more than `left`
    values, and for containers within containers beyond reason.
    """
    if depth > DEEPEST or next(left, None) is None:
        raise pickle.UnpicklingError(f"it has more than {MOST_VALUES} values or {DEEPEST} levels")
    if isinstance(value, dict):
        return {plain_copy(key, left, depth + 1): plain_copy(item, left, depth + 1) for key, item in dict.items(value)}
    if isinstance(value, (list, tuple)):
        items = [plain_copy(item, left, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return None if isinstance(value, int) and abs(value) > LARGEST else value


def record_sizes(path: Path) -> dict[str, int] | None:
    """The bytes of each record of a zip file, as torch reads it; None for the older format.

    Raises UnpicklingError for files that torch.load would unpack: old tar files, compressed or overlapping records.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head.startswith(b"PK\x03\x04"):
        if is_tar(head):
            raise pickle.UnpicklingError("it is a tar archive; save it with a newer torch")
        return None
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    size = getattr(reader, "get_record_size", lambda name: len(reader.get_record(name)))  # torch 2.6 may lack it
    sizes = {name: size(name) for name in names}
    read = sum(size for name, size in sizes.items() if not name.startswith("code/"))  # of a program, never read
    if read > path.stat().st_size or len(sizes) < len(names):
        raise pickle.UnpicklingError("its entries are compressed or overlap; save it with torch.save")
    return sizes


def check_sums(path: Path) -> None:
    """Raise BadZipFile where a record of a zip file differs from its checksum, which torch does not compare."""
    with zipfile.ZipFile(path) as archive:
        stored = [record for record in archive.infolist() if record.compress_type == zipfile.ZIP_STORED]
        records = [record for record in stored if record.CRC]  # 0: torch was told to compute none
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise pickle.UnpicklingError("its entries overlap; save it with torch.save")
        for record in records:
            with archive.open(record) as file:
                while file.read(1 << 22):
                    pass


def is_tar(head: bytes) -> bool:
    """Report whether a file that begins so is a tar archive of any age, which torch.load would unpack."""
    try:
        tarfile.TarInfo.frombuf(head.ljust(tarfile.BLOCKSIZE, b"\0"), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


# TorchScript, such as OpenAI's CLIP: a program with weights, of which only the weights are read


class ProgramModule(Skipped):
    """A stand-in for a module of a program, with its attributes but without its code."""

    attributes: Mapping[str, Any] = types.MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class ProgramUnpickler(SafeUnpickler):
    """Reads a program's attributes; storages are records of the file."""

    reader: ClassVar[Any] = None

    def allow(self, function: Any) -> None:
        if function is not ProgramModule:
            super().allow(function)

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return ProgramModule
        if module == "torch" and name.endswith("Storage"):
            return torch.serialization.StorageType(name)
        return Skipped if module == "torch.jit._pickle" else super().find_class(module, name)

    def persistent_load(self, identity: Any) -> Any:
        _, kind, key, _, length = identity
        raw = self.reader.get_storage_from_record(f"data/{key}", length * kind.dtype.itemsize, torch.uint8)
        return torch.storage.TypedStorage(wrap_storage=raw.untyped_storage(), dtype=kind.dtype, _internal=True)


def program_weights(path: Path, sizes: dict[str, int]) -> dict[str, Tensor]:
    """The tensors of a TorchScript file by name."""
    reader = torch._C.PyTorchFileReader(str(path))
    unpickler = type("Unpickler", (ProgramUnpickler,), {"sizes": sizes, "reader": reader})
    whole = unpickler(io.BytesIO(reader.get_record("data.pkl"))).load()
    return weights_of_modules(whole)


def weights_of_modules(whole: Any) -> dict[str, Tensor]:
    """The tensors of a program's modules by name. Raises UnpicklingError for more modules than a program has."""
    weights: dict[str, Tensor] = {}
    waiting = [("", whole)]
    for _ in range(MOST_MODULES + 1):
        if not waiting:
            return weights
        prefix, module = waiting.pop()
        if prefix.count(".") > DEEPEST:
            raise pickle.UnpicklingError(f"it has modules of more than {DEEPEST} levels")
        for name, value in module.attributes.items() if isinstance(module, ProgramModule) else ():
            if isinstance(value, Tensor):
                weights[f"{prefix}{name}"] = value
            elif isinstance(value, ProgramModule):
                waiting.append((f"{prefix}{name}.", value))
    raise pickle.UnpicklingError(f"it has more than {MOST_MODULES} modules")
