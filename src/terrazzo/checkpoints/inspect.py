"""The contents of a checkpoint file."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from terrazzo.checkpoints.publish import known
from terrazzo.errors import UserError
from terrazzo.hub.cache import sha256
from terrazzo.inference.saved_config import saved_config
from terrazzo.models.build import build_model, without_values
from terrazzo.models.checkpoint import is_constant, read_checkpoint
from terrazzo.models.naming import translate
from terrazzo.recipes import families, family
from terrazzo.registry import MODELS

STATISTICS = ("running_mean", "running_var")
FEWEST = 20  # tensors of a file that may be one of the architectures; the smallest has 120
ALIKE = 0.6  # the least share of common names at which a file looks like a family's model


def inspect_checkpoint(path: str | Path, weights: str | None = None) -> dict[str, Any]:
    """Plain values: file, sections, parameters, model, classes, progress, scores. Raises UserError for a bad file."""
    checkpoint = read_checkpoint(path, weights)
    config = saved_config(checkpoint)
    return {
        "path": str(checkpoint.path),
        "bytes": checkpoint.path.stat().st_size,
        "sha256": sha256(checkpoint.path),
        "weights": checkpoint.kind,
        "other_weights": checkpoint.other,
        "sections": list(checkpoint.sections),
        "tensors": len(checkpoint.weights),
        "parameters": sum(value.numel() for name, value in checkpoint.weights.items() if is_parameter(name)),
        "types": dict(Counter(str(value.dtype).removeprefix("torch.") for value in checkpoint.weights.values())),
        "model": model_types(config["model"]) if config is not None else None,
        "looks_like": None if config is not None else looks_like(checkpoint.weights),
        **known(checkpoint),
        "config": config.to_dict() if config is not None else None,
    }


def is_parameter(name: str) -> bool:
    """Report whether a tensor is trained."""
    return not is_constant(name) and not name.endswith(STATISTICS)


def model_types(model: Mapping[str, Any]) -> dict[str, str]:
    """The types of a model's parts."""
    parts = {"model": model, **{key: value for key, value in model.items() if key != "data_preprocessor"}}
    found = {}
    for name, part in parts.items():
        items = part if isinstance(part, (list, tuple)) else [part]
        types = [str(item["type"]) for item in items if isinstance(item, Mapping) and item.get("type")]
        if types:
            found[name] = ", ".join(types)
    return found


def looks_like(weights: Mapping[str, Tensor]) -> str | None:
    """The architecture that the names belong to: a family's whole model or a backbone; None for neither."""
    if len(weights) < FEWEST:
        return None
    names = {name: value.to("meta") for name, value in weights.items()}
    scores: dict[str, float] = {}
    whole = any(name.startswith("decode_head.") for name in names)
    for title, part in architectures():
        if whole and not hasattr(part, "decode_head"):
            continue
        translated, source = translate(part, names)
        title += f"; names: {source}" if source else ""
        scores[title] = likeness(shapes_of(translated), shapes_of(part.state_dict()))
    best = max(scores, key=lambda title: scores[title])
    return best if scores[best] >= ALIKE else None


@functools.cache
def architectures() -> tuple[tuple[str, nn.Module], ...]:
    """A model of each family and each of their backbones, without values, by title."""
    seen = set()
    found: list[tuple[str, nn.Module]] = []
    for name in families():
        model = skeleton(family(name)["model"])
        if model is None:
            continue
        found.append((f"a {name} model", model))
        for part in model.modules():
            kind = type(part).__name__
            if kind not in seen and part is not model and hasattr(part, "namings"):
                seen.add(kind)
                found.append((f"the backbone {kind}", part))
    with without_values():
        found.append(("the backbone SVT", MODELS.build({"type": "SVT"})))  # a family's other choice
    return tuple(found)


def skeleton(spec: dict[str, Any]) -> nn.Module | None:
    """A model without values; None if it needs an extra that is missing."""
    try:
        with without_values(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build_model(spec)
    except UserError:
        return None


def shapes_of(weights: Mapping[str, Tensor]) -> set[tuple[str, int]]:
    """Names without their numbers, with the number of axes."""
    return {(re.sub(r"\d+", "0", name), value.ndim) for name, value in weights.items() if is_parameter(name)}


def likeness(one: set[Any], other: set[Any]) -> float:
    """The share of common elements among all."""
    return len(one & other) / max(1, len(one | other))
