"""The cost and the outputs of a model (parameters, FLOPs, features, memory), and the registered types."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from terrazzo.errors import UserError, first_line, nearest
from terrazzo.models.build import build_model, input_channels, without_values
from terrazzo.registry import MODELS
from terrazzo.system.arithmetic import as_pair

KINDS = ("backbones", "necks", "heads", "losses", "segmentors")
OWN = "own"  # the kind of types defined outside this package
ENCODERS = ("backbone", "image_encoder", "neck")  # the parts whose outputs are feature maps
DEFAULT_SIZE = (512, 512)


@dataclass(frozen=True)
class ModelPart:
    """A segmentor's attribute: its type, its parameters, and the FLOPs that inference spends in it."""

    name: str
    type: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class FeatureMap:
    """An output of an encoder; `stride` is the input's height divided by the map's."""

    source: str
    channels: int
    height: int
    width: int
    stride: float


@dataclass(frozen=True)
class ModelInfo:
    """A model at one input size: float32, one image, inference."""

    type: str
    input_shape: tuple[int, int, int, int]
    output_shape: tuple[int, ...]
    parts: tuple[ModelPart, ...]
    features: tuple[FeatureMap, ...]
    parameters: int
    trainable: int
    flops: int  # as torch.utils.flop_counter counts them: a multiplication with its addition is two
    weight_bytes: int  # parameters and buffers
    activation_bytes: int  # the most that input and intermediate tensors hold at one time


def model_info(config: Any, size: Sequence[int] | None = None) -> ModelInfo:
    """Measure the model of a config at `size` (height, width), by default its crop size; nothing is computed.

    The model is built and run on the meta device, or on the CPU if it reads values from its tensors.
    Raises UserError for a size that the model cannot take.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    height, width = size or crop_size(values)
    shape = (1, input_channels(values.get("model", values)), height, width)
    try:
        with without_values():
            model = build_model(values)
        return measure(model, torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):
        pass
    except UserError as problem:
        if "meta" not in str(problem):
            raise
    try:
        return measure(build_model(values), torch.zeros(shape))
    except RuntimeError as problem:
        reason = first_line(problem)
        raise UserError(f"the model cannot run on an image of {height}x{width}: {reason}") from problem


def measure(model: nn.Module, images: Tensor) -> ModelInfo:
    """One pass over `images` with its FLOPs, feature maps and memory counted."""
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    model.eval().requires_grad_(False)
    model(images)  # fills the caches of the model, such as the embeddings of class names
    outputs: dict[str, Any] = {}
    for name in ENCODERS:
        if isinstance(part := getattr(model, name, None), nn.Module):
            part.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    kept = [*parameters, *model.buffers()]
    counter = FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: cpu_attention_flops})
    with torch.no_grad(), counter, LiveMemory(kept) as memory:
        memory.hold(images)
        logits = model(images)
    return ModelInfo(
        type=type(model).__name__,
        input_shape=tuple(images.shape),  # type: ignore[arg-type]
        output_shape=tuple(logits.shape),
        parts=tuple(find_parts(model, counter)),
        features=tuple(feature_maps(outputs, images.shape[2])),
        parameters=sum(p.numel() for p in parameters),
        trainable=trainable,
        flops=counter.get_total_flops(),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in kept),
        activation_bytes=memory.peak,
    )


CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which the counter omits


def cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs of attention, from the shapes of its inputs."""
    return sdpa_flop_count(query, key, value)


def find_parts(model: nn.Module, counter: FlopCounterMode) -> Iterator[ModelPart]:
    """The model's attributes that have parameters; FLOPs outside of them are counted for the decode head."""
    counts = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}

    def flops(module: nn.Module, path: str) -> int:
        if path in counts:
            return counts[path]
        return sum(flops(child, f"{path}.{name}") for name, child in module.named_children())

    parts = {name: part for name, part in model.named_children() if any(True for _ in part.parameters())}
    spent = {name: flops(part, f"{type(model).__name__}.{name}") for name, part in parts.items()}
    if "decode_head" in spent:
        spent["decode_head"] += counter.get_total_flops() - sum(spent.values())
    for name, part in parts.items():
        types = [type(item).__name__ for item in (part if isinstance(part, nn.ModuleList) else [part])]
        yield ModelPart(name, " + ".join(types), sum(p.numel() for p in part.parameters()), spent[name])


def feature_maps(outputs: Mapping[str, Any], height: int) -> Iterator[FeatureMap]:
    """Each map (N, C, H, W) of the encoders' outputs, however they are nested; `height` is the input's."""
    for name, output in outputs.items():
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and x.ndim == 4:
                yield FeatureMap(name, x.shape[1], x.shape[2], x.shape[3], round(height / x.shape[2], 2))


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of live tensors that operators have returned; `peak` is the highest count.

    Storages of `kept` tensors do not count, nor does the memory inside operators and of a device's allocator.
    """

    def __init__(self, kept: Sequence[Tensor]) -> None:
        super().__init__()
        self.kept = {tensor.untyped_storage()._cdata for tensor in kept}
        self.owners: dict[int, int] = {}  # storage -> live tensors that share it
        self.now = self.peak = 0

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.kept:
            return
        if key not in self.owners:
            self.owners[key] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self.owners[key] += 1
        weakref.finalize(tensor, self.release, key, size)

    def release(self, key: int, size: int) -> None:
        """Record that one of the tensors that share a storage was freed."""
        self.owners[key] -= 1
        if not self.owners[key]:
            del self.owners[key]
            self.now -= size

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operator(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self.hold(value)
        return output


def model_kind(model: Mapping[str, Any]) -> str:
    """`ResNetV1c+FPN+FPNHead`; of a head that refines another one's kernels, both."""
    parts = (model.get("backbone"), model.get("neck"), model["decode_head"])
    last = [part[-1] if isinstance(part, (list, tuple)) else part for part in parts]
    names = [part["type"].rpartition(".")[2] for part in last if part]
    inner = (last[2] or {}).get("kernel_generate_head")
    return "+".join(names) + (f"({inner['type']})" if inner else "")


def crop_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the crops that a config trains on; 512x512 where it specifies none."""
    model = config.get("model", config)
    for preprocessor in (model.get("data_preprocessor"), config.get("data_preprocessor")):
        if preprocessor and preprocessor.get("size"):
            return as_pair(preprocessor["size"], "data_preprocessor.size")
    cropped = find_crop(config.get("train_dataloader"))
    size = cropped if cropped is not None else config.get("crop_size") or DEFAULT_SIZE
    return as_pair(size, "crop_size")


def has_crop(config: Mapping[str, Any]) -> bool:
    """Return whether a config specifies the size of its crops."""
    sized = [config.get("data_preprocessor"), config["model"].get("data_preprocessor")]
    return any(part and part.get("size") for part in sized) or find_crop(config.get("train_dataloader")) is not None


def find_crop(spec: Any) -> Any:
    """The size of the first RandomCrop within a loader, or None."""
    if isinstance(spec, Mapping):
        if str(spec.get("type", "")).rpartition(".")[2] == "RandomCrop":
            return spec.get("crop_size")
        spec = list(spec.values())
    if isinstance(spec, (list, tuple)):
        return next((found for item in spec if (found := find_crop(item)) is not None), None)
    return None


def list_types(kind: str | None = None) -> dict[str, dict[str, str]]:
    """The registered types by kind, each with a line of description. Raises UserError for an unknown kind."""
    if kind is not None and kind not in (*KINDS, OWN):
        raise UserError(f"there is no kind of model called '{kind}'{nearest(kind, KINDS)} ({', '.join((*KINDS, OWN))})")
    MODELS.load()
    first_names = {item: name for name, item in reversed(MODELS.types.items())}  # aliases come after the name
    types = sorted((name, item) for item, name in first_names.items())
    listed: dict[str, dict[str, str]] = {}
    for group in (*KINDS, OWN) if kind is None else (kind,):
        found = {name: summary(item) for name, item in types if kind_of(item) == group}
        if found:
            listed[group] = found
    return listed


def kind_of(item: Any) -> str:
    """The kind of a registered type, according to the folder that defines it."""
    folder = item.__module__.removeprefix("terrazzo.models.").partition(".")[0]
    return folder if item.__module__.startswith("terrazzo.models.") and folder in KINDS else OWN


def summary(item: Any) -> str:
    """The first line of a type's own docstring."""
    return inspect.cleandoc(vars(item).get("__doc__") or "").partition("\n")[0]
