"""The dicts by which configs describe layers."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]  # such as {"type": "BN", "requires_grad": True}


def kind_of(spec: Spec) -> str:
    """The type of a layer's config without its scope; a class stands for its name."""
    kind = spec.get("type", "")
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]
