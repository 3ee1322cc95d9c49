"""Names of MSCAN's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming

NAMINGS = (
    Naming(
        "the SegNeXt release",
        mark=r"block1\.0\.mlp\.dwconv\.dwconv\.weight",
        rules=((r"\.dwconv\.dwconv\.", ".dwconv."),),
        drop=r"head\.",
    ),
)
