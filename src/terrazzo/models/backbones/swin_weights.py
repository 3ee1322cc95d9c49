"""Names of Swin Transformer's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming, Weights, shifted


def neighbours_last(weights: Weights, original: Weights) -> Weights:
    """Reorder patch merging: there neighbours follow each other column by column, each with all its channels; here the
    channels come first, each with its neighbours row by row."""
    return {
        name: value.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3) if ".downsample." in name else value
        for name, value in weights.items()
    }


ATTENTION = (r"\.attn\.(?=relative_position_bias_table|qkv|proj)", ".attn.w_msa.")
MLP = ((r"\.mlp\.(fc1|0)\.", ".ffn.layers.0.0."), (r"\.mlp\.(fc2|3)\.", ".ffn.layers.1."))
COMMON = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.(\d)\.blocks\.", r"stages.\1.blocks."),
    ATTENTION,
    *MLP,
    (r"^norm\.", "norm3."),
)

NAMINGS = (
    Naming(
        "timm",
        mark=r"layers\.3\.downsample\.reduction\.weight",
        rules=(shifted(r"^layers\.(\d)\.downsample\.", "stages.{}.downsample.", -1), *COMMON),
        drop=r"head\.|.*\.attn_mask$",
        finish=neighbours_last,
    ),
    Naming(
        "Microsoft's release",
        mark=r"layers\.0\.blocks\.0\.attn\.qkv\.weight",
        rules=((r"^layers\.(\d)\.downsample\.", r"stages.\1.downsample."), *COMMON),
        drop=r"head\.|.*\.attn_mask$",
        finish=neighbours_last,
    ),
    Naming(
        "torchvision",
        mark=r"features\.1\.0\.attn\.qkv\.weight",
        rules=(
            (r"^features\.0\.0\.", "patch_embed.projection."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.([1357])\.", lambda match: f"stages.{int(match[1]) // 2}.blocks."),
            (r"^features\.([246])\.", lambda match: f"stages.{int(match[1]) // 2 - 1}.downsample."),
            ATTENTION,
            *MLP,
            (r"^norm\.", "norm3."),
        ),
        drop=r"head\.",
        finish=neighbours_last,
    ),
)
