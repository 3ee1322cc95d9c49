"""Names of PoolFormer's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming

NAMINGS = (
    Naming("the PoolFormer release", mark=r"norm\.weight", rules=((r"^norm\.", "norm6."),), drop=r"head\."),
    Naming(
        "timm",
        mark=r"stages\.0\.blocks\.0\.layer_scale1\.scale",
        rules=(
            (r"^stem\.conv\.", "patch_embed.proj."),
            (r"^stages\.(\d)\.downsample\.conv\.", lambda match: f"network.{2 * int(match[1]) - 1}.proj."),
            (r"^stages\.(\d)\.blocks\.", lambda match: f"network.{2 * int(match[1])}."),
            (r"\.layer_scale([12])\.scale$", r".layer_scale_\1"),
            (r"^head\.norm\.", "norm6."),
        ),
        drop=r"head\.fc\.",
    ),
)
