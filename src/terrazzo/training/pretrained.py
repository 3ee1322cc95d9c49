"""The weights that training starts from; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from terrazzo import recipes
from terrazzo.hub.cache import cached, find_cached
from terrazzo.models.checkpoint import load_checkpoint, read_checkpoint

AUTO = "auto"  # the published weights where they are on this machine


@dataclass(frozen=True)
class Start:
    """Weights that a part of a model starts from; `path` is its path in the config, `kind` its type."""

    path: tuple[str, ...]
    kind: str
    checkpoint: str
    prefix: str = ""  # of the part's names in the file
    adapt_input: bool = False


def starts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Start]:
    """Every `pretrained` and `init_cfg` of type Pretrained in a model's config, the outermost first."""
    kind = str(config.get("type", "")).rpartition(".")[2]
    found = config.get("init_cfg")
    options = found if isinstance(found, (list, tuple)) else [found]
    init = next((item for item in options if isinstance(item, Mapping) and item.get("type") == "Pretrained"), None)
    if config.get("pretrained") is True and "model_name" in config:  # timm's form
        yield Start(path, kind, f"timm://{config.get('model_name')}")
    elif config.get("pretrained") not in (None, "", False, "none", AUTO):
        yield Start(path, kind, str(config["pretrained"]))
    elif init is not None and init.get("checkpoint"):
        adapt = bool(init.get("adapt_input", False))
        yield Start(path, kind, str(init["checkpoint"]), str(init.get("prefix") or ""), adapt)
    for key, value in config.items():
        if isinstance(value, Mapping) and key != "init_cfg":
            yield from starts(value, (*path, key))


def load_pretrained(model: nn.Module, name: str | None, config: Mapping[str, Any] | None = None) -> str:
    """Load a backbone's weights, or without a `name` those that the model's config names for its parts.

    The name "none" leaves everything random; "auto", also in the config, takes those that are on this machine. Returns
    a report of a few lines. Raises UserError for weights that are neither a file nor in a cache.
    """
    config = config or {}
    name = name or (AUTO if config.get("pretrained") == AUTO else None)
    if name not in (None, AUTO):
        chosen = [] if name.lower() == "none" else [Start((), "", name)]
    else:
        chosen = list({start.checkpoint: start for start in (*lacking(model), *starts(config))}.values())
    if not chosen:
        return "backbone: random weights (no pretrained ones)"
    lines = [load_start(model, start) if name != AUTO or is_here(start) else missing(start) for start in chosen]
    return "\n".join(lines)


def lacking(model: nn.Module) -> Iterator[Start]:
    """The weights that a user's parts have asked for when they were built, and that were not there."""
    for path, part in model.named_modules():
        for name in getattr(part, "lacks", ()):
            yield Start(tuple(path.split(".")) if path else (), type(part).__name__, name)


def is_here(start: Start) -> bool:
    """Report whether weights are on this machine."""
    return is_model(start.checkpoint) or cached(start.checkpoint) is not None


def is_model(name: str) -> bool:
    """Report whether a name is that of a run's folder or of a recipe."""
    return Path(name).is_dir() or name in recipes.names()


def missing(start: Start) -> str:
    """The line about published weights that are not on this machine."""
    part, name = ".".join(start.path) or "backbone", start.checkpoint
    return f"{part}: random weights, as {name} is not on this machine: `terrazzo weights get {name}` fetches it"


def load_start(model: nn.Module, start: Start) -> str:
    """Load one part's weights."""
    # The part: by its name in the model, or else the first of its type below its parent
    path = start.path or (("backbone",) if hasattr(model, "backbone") else ())
    part = model
    for key in path:
        inner = getattr(part, key, None)
        if not isinstance(inner, nn.Module):
            inner = next((module for module in part.modules() if type(module).__name__ == start.kind), part)
        part = inner

    # Its weights
    own_way = getattr(part, "start_from", None)  # of a class that loads them itself
    if own_way is not None:
        return f"{'.'.join(path) or 'model'}: {own_way(str(find_cached(start.checkpoint)))}"
    checkpoint = read_checkpoint(start.checkpoint if is_model(start.checkpoint) else find_cached(start.checkpoint))
    prefix, weights = start.prefix, checkpoint.weights
    own = {name.removeprefix(prefix): weights[name] for name in weights if prefix and name.startswith(prefix)}
    if own:
        checkpoint = replace(checkpoint, weights=own)
    return f"{'.'.join(path) or 'model'}: {load_checkpoint(part, checkpoint, adapt_input=start.adapt_input)}"
