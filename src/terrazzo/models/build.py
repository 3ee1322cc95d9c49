"""Models from the `model` section of a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from terrazzo.arguments import construct, shown
from terrazzo.config.authors import by_authors
from terrazzo.config.custom_imports import check_custom
from terrazzo.config.ignored import drop_ignored
from terrazzo.config.reading.section import Section, convert
from terrazzo.errors import UserError
from terrazzo.models.channels import fill_channels
from terrazzo.models.checks import check_model
from terrazzo.models.preprocess import Preprocess
from terrazzo.registry import MODELS, SCOPE_KEY

MAX_WEIGHTS = 2**31
MAX_MODULES = 20_000
FILLS = {
    *(getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.endswith("__")),
    Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_,
}  # fmt: skip


def build_model(config: Any, vocabulary: str | None = None) -> nn.Module:
    """Build a model with random weights from a Config, a model dict, a config file or a name of a recipe or family.

    `vocabulary="0.x"` upgrades a bare 0.x dict. `pretrained`, `init_cfg` and arguments without an effect are dropped.
    Raises UserError for an unknown type or argument, and for parts that contradict each other.
    """
    if isinstance(config, (str, Path)):
        config = named_config(config, vocabulary)
    check_custom(config)
    preprocessor = config.get("data_preprocessor") if "model" in config else None
    spec = convert(config.get("model", dict(config)), Section)
    if vocabulary == "0.x":
        from terrazzo.config.v0.upgrade import upgrade_model

        spec = upgrade_model(spec)
    if not isinstance(spec, dict) or spec.get("type") is None:
        raise UserError("the config has no model: it needs a section `model` with a `type`, such as EncoderDecoder")
    spec["data_preprocessor"] = spec.get("data_preprocessor") or preprocessor or {}
    spec = drop_ignored({"model": by_authors(spec, MODELS.raw)})["model"]
    for key, value in fill_channels(spec).items():
        if value is not spec[key]:
            spec[key] = convert(value, Section)
    spec.put("data_preprocessor", build_preprocess(spec["data_preprocessor"]), None)
    with bounded_size():
        model: nn.Module = MODELS.build(spec, "model")
    check_model(model)
    return model.train()  # freezes the parts that training leaves as they are


def named_config(name: str | Path, vocabulary: str | None = None) -> Any:
    """The config of a file, of a recipe or, for the classes of Cityscapes, of a family."""
    from terrazzo.config.load import load_config
    from terrazzo.recipes.compose import family, is_family

    return family(str(name)) if is_family(str(name)) else load_config(name, vocabulary=vocabulary)


class NoFills(TorchFunctionMode):
    """Leaves tensors as they are where they would get their starting values."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in FILLS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


@contextmanager
def without_values() -> Iterator[None]:
    """Build models on the meta device inside, without starting values, which take most of the time there."""
    with NoFills(), torch.device("meta"):
        yield


@contextmanager
def bounded_size() -> Iterator[None]:
    """Raise UserError where a model becomes larger than any that can be trained, before its memory is used."""
    weights = modules = 0

    def add_weights(module: nn.Module, name: str, value: Any) -> None:
        nonlocal weights
        weights += 0 if value is None else value.numel()
        if weights > MAX_WEIGHTS:
            raise UserError(f"the model has more than {MAX_WEIGHTS:,} weights: lower its channels, or number of layers")

    def add_module(module: nn.Module, name: str, value: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MAX_MODULES:
            raise UserError(f"the model has more than {MAX_MODULES:,} layers: lower their number")

    hooks = [
        register_module_parameter_registration_hook(add_weights),
        register_module_module_registration_hook(add_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def input_channels(model: Mapping[str, Any]) -> int:
    """Channels of the images that a model reads, according to its config: 3 unless its backbone specifies them.

    A model of several images at once, such as two dates, normalises more than its backbone reads.
    """
    backbone, preprocessor = (model.get(key) or {} for key in ("backbone", "data_preprocessor"))
    count = backbone.get("in_channels", 3) if isinstance(backbone, Mapping) else 3
    mean = preprocessor.get("mean") if isinstance(preprocessor, Mapping) else None
    return max(count, len(mean)) if isinstance(mean, (list, tuple)) else count


def build_preprocess(spec: Mapping[str, Any]) -> Preprocess:
    """The normalisation that `data_preprocessor` specifies; without one, images stay unchanged, in RGB order."""
    if not spec:
        return Preprocess()
    if not isinstance(spec, Mapping):
        raise UserError(f"data_preprocessor must be a section of keys, not {shown(spec)}")
    if str(spec.get("type")).rpartition(".")[2] in MODELS.raw:  # a user's
        made: Preprocess = MODELS.build(spec, "data_preprocessor")
        return made
    options = {"bgr_to_rgb": False} | {key: value for key, value in spec.items() if key not in ("type", SCOPE_KEY)}
    return construct(Preprocess, options, "SegDataPreProcessor", "data_preprocessor", spec)
