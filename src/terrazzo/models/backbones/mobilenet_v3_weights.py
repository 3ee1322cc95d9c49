"""Names of MobileNetV3's weights in other releases."""

from __future__ import annotations

import re

from terrazzo.models.naming import Naming, Weights

KINDS = ("conv", "bn")
CONVOLUTIONS = ("expand_conv", "depthwise_conv", "linear_conv")  # a block without the first has no expansion


def by_role(weights: Weights, original: Weights) -> Weights:
    """Rename `layerN.block.M`, the M-th part of a block, by the role of the part."""
    parts: dict[str, set[int]] = {}
    for name in weights:
        if match := re.match(r"(layer\d+)\.block\.(\d)\.[01]\.", name):
            parts.setdefault(match[1], set()).add(int(match[2]))

    def role(match: re.Match[str]) -> str:
        order = sorted(parts[match[1]])
        return f"{match[1]}.{CONVOLUTIONS[order.index(int(match[2])) - len(order)]}.{KINDS[int(match[3])]}."

    return {re.sub(r"(layer\d+)\.block\.(\d)\.([01])\.", role, name): value for name, value in weights.items()}


NAMINGS = (
    Naming(
        "torchvision",
        mark=r"features\.1\.block\.0\.0\.weight",
        rules=(
            (r"^features\.(\d+)\.([01])\.", lambda match: f"layer{match[1]}.{KINDS[int(match[2])]}."),
            (r"^features\.", "layer"),
            (r"\.block\.\d\.fc([12])\.", r".se.conv\1.conv."),
        ),
        drop=r"classifier\.",
        finish=by_role,
    ),
)
