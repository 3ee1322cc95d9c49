"""Reading checkpoints, ours and MMSegmentation's, without running anything that they contain."""

from __future__ import annotations

import collections
import json
import pickle
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from terrazzo.errors import UserError

_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # Python's own: see SafeUnpickler

# What a checkpoint may construct: tensors and plain containers.
ALLOWED_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}
# Objects of these packages are records of the run that saved the file; inert stand-ins take their place.
SKIPPED_PACKAGES = (
    "mmcv", "mmengine", "mmseg", "mmdet", "mmcls", "mmpretrain", "addict", "numpy", "argparse", "collections",
    "pathlib", "datetime",
)  # fmt: skip
# So they do for the names that put such objects together: plain types, text as bytes, attributes of stand-ins.
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
    """Stands for an object in a checkpoint that is of no use here; it takes whatever it is given and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Skipped:
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class SafeUnpickler(_Unpickler):
    """An unpickler that constructs tensors and plain containers only.

    Unlike C's, Python's own unpickler can be told what may be called, and what may have its attributes set.
    """

    dispatch: ClassVar[Any] = dict(_Unpickler.dispatch)

    def load_reduce(self) -> None:
        function = self.stack[-2]
        if not (isinstance(function, Skipped) or any(function is known for known in CALLABLE)):
            raise pickle.UnpicklingError(f"it calls {function!r}, which makes neither a tensor nor a container")
        super().load_reduce()

    def load_build(self) -> None:
        target = self.stack[-2]
        if not isinstance(target, (Skipped, collections.OrderedDict)):
            raise pickle.UnpicklingError(f"it sets attributes of {target!r}")
        super().load_build()

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        module = PYTHON_2.get(module, module)
        if (module, name) in ALLOWED_GLOBALS:
            return ALLOWED_GLOBALS[module, name]
        if module in ("torch", "torch.storage") and (name.endswith("Storage") or name in DTYPES):
            return getattr(torch.storage if module == "torch.storage" else torch, name)
        if module.partition(".")[0] in SKIPPED_PACKAGES or name in SKIPPED_GLOBALS.get(module, ()):
            return Skipped
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither a tensor nor a container")


CALLABLE = [*ALLOWED_GLOBALS.values(), Skipped]
DTYPES = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
_SAFE_PICKLE = types.SimpleNamespace(
    Unpickler=SafeUnpickler,
    load=lambda file, **options: SafeUnpickler(file, **options).load(),
    __name__="terrazzo.models.checkpoint",
)


@dataclass
class Checkpoint:
    """What a file holds: weights by name, and `meta` (classes, palette, config, ...) as far as it is known."""

    path: Path
    weights: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint and of a model; `str()` of it is a few lines to read."""

    path: Path
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    reinitialised: list[str]  # in both, but of different shapes

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.reinitialised)
        lines = [f"loaded {len(self.loaded)} of {total} tensors from {self.path}"]
        for what, names in (
            ("missing in the checkpoint", self.missing),
            ("unexpected in the checkpoint", self.unexpected),
            ("of another shape, left as initialised", self.reinitialised),
        ):
            if names:
                lines.append(f"  {len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
        return "\n".join(lines)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Weights and meta of a `.pth` or `.safetensors` file. Raises UserError for a damaged or an unsafe one."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    refuse_programs(path)
    try:
        content = torch.load(path, map_location="cpu", pickle_module=_SAFE_PICKLE, weights_only=False)
    except pickle.UnpicklingError as problem:
        raise UserError(f"{path} is refused as a checkpoint: {problem}. Nothing in it was executed.") from None
    except Exception as problem:  # torch reports a damaged file in a dozen ways, none of them documented
        raise UserError(f"{path} cannot be read as a checkpoint: it is damaged or cut off ({problem})") from None
    if isinstance(content, Skipped):
        raise UserError(f"{path} holds a whole pickled model, which is code: save its state_dict() instead")
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no dict of tensors, but {type(content).__name__}")
    weights = content
    for key in ("state_dict", "model", "module"):
        if isinstance(weights.get(key), dict):
            weights = weights[key]
            break
    weights = {strip_wrappers(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{path} holds no tensors; its keys are {', '.join(map(str, list(content)[:8]))}")
    meta = content.get("meta")
    return Checkpoint(path, weights, dict(meta) if isinstance(meta, dict) else {})


def refuse_programs(path: Path) -> None:
    """Raise UserError for the formats that torch.load would run or unpack: TorchScript and the tar files of old."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        try:
            names = torch._C.PyTorchFileReader(str(path)).get_all_records()
        except RuntimeError:
            return  # damaged: torch.load says so
        if "constants.pkl" in names:
            raise UserError(
                f"{path} is refused as a checkpoint: it is a TorchScript program; save a state_dict instead"
            )
    elif head[257:262] == b"ustar":
        raise UserError(f"{path} is refused as a checkpoint: it is a tar archive; save it with a newer torch")


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            meta = {key: _from_json(value) for key, value in (file.metadata() or {}).items()}
            return Checkpoint(path, {name: file.get_tensor(name) for name in file.keys()}, meta)  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise UserError(f"{path} cannot be read as a checkpoint: it is damaged or cut off ({problem})") from None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def strip_wrappers(name: str) -> str:
    """A parameter's name without what DataParallel and torch.compile put before it."""
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def load_checkpoint(model: nn.Module, path: str | Path | Checkpoint, *, strict: bool = False) -> LoadReport:
    """Load what fits by name and shape, and report the rest. Raises UserError if nothing fits.

    `strict` raises UserError too where something that inference needs is missing or of another shape.
    """
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    own = model.state_dict()
    fitting = {
        name: value for name, value in checkpoint.weights.items() if name in own and own[name].shape == value.shape
    }
    report = LoadReport(
        checkpoint.path,
        loaded=list(fitting),
        missing=[name for name in own if name not in checkpoint.weights],
        unexpected=[name for name in checkpoint.weights if name not in own],
        reinitialised=[name for name in own if name in checkpoint.weights and name not in fitting],
    )
    lacking = needed_names(model) & {*report.missing, *report.reinitialised}
    if not fitting or (strict and lacking):
        details = "; ".join(line.strip() for line in str(report).splitlines())
        raise UserError(f"{checkpoint.path} does not fit this model, it was saved from another one: {details}")
    model.load_state_dict(fitting, strict=False)
    return report


def needed_names(model: nn.Module) -> set[str]:
    """What inference cannot do without: parameters and running statistics, those of auxiliary heads aside."""
    statistics = {name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    names = {name for name, _ in model.named_parameters()} | statistics
    return {name for name in names if not name.startswith("auxiliary_head.")}
