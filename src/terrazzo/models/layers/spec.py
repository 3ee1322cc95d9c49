"""The dicts by which configs describe layers."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]  # such as {"type": "BN", "requires_grad": True}
