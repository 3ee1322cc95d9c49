"""Names of MobileNetV2's weights in other releases."""

from __future__ import annotations

import re

from terrazzo.models.naming import Naming

COUNTS = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage
BLOCKS = [f"layer{stage}.{block}" for stage, count in enumerate(COUNTS, 1) for block in range(count)]
KINDS = ("conv", "bn")


def block_name(match: re.Match[str]) -> str:
    """`features.N.conv.` of the N-th block, counted from 1."""
    return f"{BLOCKS[int(match[1]) - 1]}.conv."


def last_of(match: re.Match[str]) -> str:
    """The projection, whose convolution and norm are not in a separate sequence."""
    position = 1 if match[1] == "layer1.0" else 2  # the first block has no expansion
    return f"{match[1]}.conv.{position}.{KINDS[int(match[2]) - position]}."


NAMINGS = (
    Naming(
        "torchvision",
        mark=r"features\.1\.conv\.0\.0\.weight",
        rules=(
            (r"^features\.0\.([01])\.", lambda match: f"conv1.{KINDS[int(match[1])]}."),
            (r"^features\.(\d+)\.conv\.", block_name),
            (r"^(layer\d\.\d)\.conv\.(\d)\.(?=[a-z])", last_of),
            (r"\.conv\.(\d)\.([01])\.", lambda match: f".conv.{match[1]}.{KINDS[int(match[2])]}."),
        ),
        drop=r"features\.18\.|classifier\.",
    ),
)
