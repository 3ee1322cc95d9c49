"""The channels between a model's parts: read from its backbone where a config leaves them out, and mismatches named."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.arguments import MISTAKES
from terrazzo.errors import UserError
from terrazzo.registry import MODELS

AUTO = "auto"
FINE = "c1_in_channels"  # of the finest map, which DeepLabV3+ reads too
INNER = "kernel_generate_head"  # of K-Net's head
SIDE = 128  # of the image that the channels are read from; it is never computed, unless the backbone needs values
IMAGE_CHANNELS = 3


def fill_channels(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's spec with `in_channels` of its neck and heads where they are "auto" or left out.

    They are those of the maps that its backbone gives. Raises UserError where these are not a list of maps.
    """
    filled = dict(model)
    backbone, neck = filled.get("backbone"), filled.get("neck")
    parts = {key: filled[key] for key in ("decode_head", "auxiliary_head") if has_open(filled.get(key))}
    if not isinstance(backbone, Mapping) or not (parts or has_open(neck)):
        return filled
    if isinstance(neck, Mapping) and is_open(neck):
        filled["neck"] = neck = {**neck, "in_channels": Maps(backbone).channels}
    if not parts:
        return filled
    maps = Maps(backbone, neck)
    return filled | {key: with_channels(part, maps, f"model.{key}") for key, part in parts.items()}


def has_open(spec: Any) -> bool:
    """Report whether the channels of a part, or of a head inside it, are to be read from the backbone."""
    if isinstance(spec, (list, tuple)):
        return any(map(has_open, spec))
    return is_open(spec) or (isinstance(spec, Mapping) and has_open(spec.get(INNER)))


def is_open(spec: Any) -> bool:
    """Report whether a part's own channels are to be read from the backbone."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("type"), str):
        return False
    checked = "in_channels" not in spec and spec["type"] not in MODELS.raw  # a raw type's arguments are its author's
    required = checked and default_of(spec["type"], "in_channels") is inspect.Parameter.empty
    return required or AUTO in (spec.get("in_channels"), spec.get(FINE))


def default_of(kind: str, name: str) -> Any:
    """The default of a type's argument, which may be one of a class that it passes on to; None if it has none such."""
    factory = MODELS.get(kind) if kind in MODELS else None
    owners = [owner for owner in getattr(factory, "__mro__", ()) if "__init__" in vars(owner)]
    found = [inspect.signature(owner.__init__).parameters.get(name) for owner in owners]
    return next((parameter.default for parameter in found if parameter is not None), None)


class Maps:
    """The maps that a backbone, and the neck after it, give for an image."""

    def __init__(self, backbone: Mapping[str, Any], neck: Mapping[str, Any] | None = None) -> None:
        shape = (1, int(backbone.get("in_channels", IMAGE_CHANNELS)), SIDE, SIDE)
        specs = [spec for spec in (backbone, neck) if spec is not None]
        self.source = " and ".join(str(spec["type"]) for spec in specs)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=()), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                with torch.device("meta"):
                    maps = run(specs, torch.empty(shape))
            except (NotImplementedError, RuntimeError):  # it reads values from its tensors
                maps = run(specs, torch.zeros(shape))
        firsts = [item[0] if isinstance(item, (list, tuple)) else item for item in maps]
        if not firsts or not all(isinstance(item, Tensor) and item.ndim == 4 for item in firsts):
            raise UserError(
                f"model.backbone: the channels of {self.source} cannot be read from its outputs, which are not a list "
                "of maps: give the heads' in_channels"
            )
        self.channels: list[int] = [int(item.shape[1]) for item in firsts]

    def of(self, index: Any, where: str) -> Any:
        """The channels of one map, or of several as a list."""
        if isinstance(index, (list, tuple)):
            return [self.of(one, where) for one in index]
        if not isinstance(index, int) or not -len(self.channels) <= index < len(self.channels):
            raise UserError(f"{where}.in_index={index}: {self.source} gives {len(self.channels)} maps, numbered from 0")
        return self.channels[index]


def run(specs: Sequence[Mapping[str, Any]], images: Tensor) -> Any:
    """The outputs of parts that are applied one after the other."""
    outputs: Any = images
    for spec in specs:
        part: nn.Module = MODELS.build(dict(spec))
        outputs = part.eval()(outputs)
    return outputs


def with_channels(spec: Any, maps: Maps, where: str) -> Any:
    """A head's spec, or those of several, with their channels."""
    if isinstance(spec, (list, tuple)):
        return [with_channels(one, maps, f"{where}.{index}") for index, one in enumerate(spec)]
    filled = dict(spec)
    if INNER in filled:
        filled[INNER] = with_channels(filled[INNER], maps, f"{where}.{INNER}")
    if is_open(spec):
        index = spec.get("in_index", default_of(spec["type"], "in_index"))
        filled["in_channels"] = maps.of([*range(len(maps.channels))] if index is None else index, where)
    if filled.get(FINE) == AUTO:
        filled[FINE] = maps.of(0, where)
    return filled


def mismatch(model: nn.Module, images: Tensor) -> str | None:
    """The point where a model's parts do not fit each other, found by running it on images; None if they do."""
    entered: list[tuple[str, nn.Module, Any]] = []

    def note(name: str) -> Any:
        return lambda module, inputs: entered.append((name, module, inputs))

    handles = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(images)
            run_auxiliary_heads(model, images)
    except UserError as problem:
        return str(problem)
    except MISTAKES as problem:
        name, module, inputs = entered[-1] if entered else ("", model, ())
        part = name.partition(".")[0]
        if isinstance(problem, IndexError):
            return f"model.{part}.in_index asks for more maps than the backbone gives"
        expected = getattr(module, "in_channels", getattr(module, "in_features", None))
        given = channels_of(inputs, -1 if hasattr(module, "in_features") else 1)
        if expected is not None and given not in (None, expected):
            way = (
                "its own channels"
                if part == "backbone"
                else f"model.{part}.in_channels (auto: as the backbone gives them)"
            )
            return f"the parts of the model do not fit: {name} takes {expected} channels and gets {given}; set {way}"
    finally:
        for handle in handles:
            handle.remove()
    return None


def run_auxiliary_heads(model: Any, images: Tensor) -> None:
    """Run the heads that a prediction leaves out."""
    heads = getattr(model, "auxiliary_heads", {})
    features = model.encode(images) if heads else None
    for head in heads.values():
        head.predict(features, images.shape[-2:])


def channels_of(inputs: Any, axis: int) -> int | None:
    """The channels of a module's first input; None if it is not a tensor."""
    first = inputs[0] if inputs else None
    return first.shape[axis] if isinstance(first, Tensor) and first.ndim > 1 else None
