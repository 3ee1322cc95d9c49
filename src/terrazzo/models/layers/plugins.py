"""Layers that a config inserts into residual blocks (`plugins`)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from terrazzo.errors import UserError, nearest
from terrazzo.models.layers.context_block import ContextBlock
from terrazzo.models.layers.non_local import NonLocal
from terrazzo.models.layers.spec import Spec
from terrazzo.registry import check_arguments

# type name -> (constructor, attribute name in a block)
PLUGINS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "ContextBlock": (ContextBlock, "context_block"),
    "NonLocal2d": (NonLocal, "nonlocal_block"),
}


def build_plugin(cfg: Spec, channels: int) -> tuple[str, nn.Module]:
    """Return the attribute name, which `postfix` makes unique, and a layer that keeps `channels`.

    Raises UserError for an unknown type or argument.
    """
    options = dict(cfg)
    kind, postfix = options.pop("type"), options.pop("postfix", "")
    if kind not in PLUGINS:
        raise UserError(f"plugins: no layer is called '{kind}'{nearest(str(kind), PLUGINS)}")
    factory, name = PLUGINS[kind]
    check_arguments(factory, {"channels": channels, **options}, kind, "plugins")
    return f"{name}{postfix}", factory(channels, **options)
