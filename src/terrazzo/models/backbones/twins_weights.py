"""Names of Twins' weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming, Weights


def by_attention(weights: Weights, original: Weights) -> Weights:
    """Rename the output projection of attention to the shrunken map, which is torch's here, unlike that in windows."""
    renamed = {}
    for name, value in weights.items():
        owner, found, leaf = name.partition(".attn.proj.")
        shrunken = found and f"{owner}.attn.qkv.weight" not in weights
        renamed[f"{owner}.attn.attn.out_proj.{leaf}" if shrunken else name] = value
    return renamed


QUERIES = (
    (r"\.attn\.q\.(\w+)$", r".attn.attn.in_proj_\1#0"),
    (r"\.attn\.kv\.(\w+)$", r".attn.attn.in_proj_\1#1"),
)

NAMINGS = (
    Naming(
        "the Twins release or timm",
        mark=r"pos_block\.0\.proj\.0\.weight",
        rules=(
            (r"^patch_embeds\.(\d)\.proj\.", r"patch_embeds.\1.projection."),
            (r"^pos_block\.(\d)\.proj\.0\.", r"position_encodings.\1.proj."),
            (r"^blocks\.", "layers."),
            (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
            (r"\.mlp\.fc2\.", ".ffn.layers.1."),
            *QUERIES,
        ),
        drop=r"head\.|norm\.",
        finish=by_attention,
    ),
    Naming(
        "MMPretrain",
        mark=r"stages\.0\.0\.ffn\.layers\.0\.0\.weight",
        rules=((r"^stages\.", "layers."), *QUERIES),
        drop=r"head\.|norm_after_stage\.",
        finish=by_attention,
    ),
)
