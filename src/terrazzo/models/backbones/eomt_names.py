"""Names of EoMT's weights in transformers, and of its encoder's in timm, DINOv2's release and transformers."""

from __future__ import annotations

import math

from terrazzo.models.naming import Naming, Rule, Weights

PARTS = tuple((rf"\.attention\.{name}_proj\.(\w+)$", rf".attention.in_proj_\1#{i}") for i, name in enumerate("qkv"))
GATED = (
    (r"\.mlp\.gate_proj\.(\w+)$", r".mlp.weights_in.\1#0"),
    (r"\.mlp\.up_proj\.(\w+)$", r".mlp.weights_in.\1#1"),
    (r"\.mlp\.down_proj\.", ".mlp.weights_out."),
)
MASK_HEAD: tuple[Rule, ...] = tuple((rf"^mask_head\.fc{i + 1}\.", f"mask_head.{2 * i}.") for i in range(3))
PATCHES: Rule = (r"^embeddings\.patch_embeddings\.projection\.", "embeddings.projection.")
UNUSED = r"embeddings\.mask_token|mask_token|head\.|classifier\.|pooler\.|fc_norm\.|criterion\."


def with_batch_axis(weights: Weights, original: Weights) -> Weights:
    """Positions (h * w, C) as (1, h * w, C)."""
    name = "embeddings.position_embeddings"
    return weights | {name: weights[name].reshape(1, *weights[name].shape[-2:])}


def without_class_position(weights: Weights, original: Weights) -> Weights:
    """Add the position of the class token to the token, which EoMT gives no position of its own."""
    positions, token = "embeddings.position_embeddings", "embeddings.cls_token"
    count = weights[positions].shape[1] if positions in weights else 0
    if math.isqrt(count) ** 2 == count:
        return weights
    first, rest = weights[positions][:, :1], weights[positions][:, 1:]
    return weights | {positions: rest, token: weights[token] + first}


NAMINGS = (
    Naming(
        "EoMT of transformers",
        mark=r"embeddings\.position_embeddings\.weight",
        rules=(
            PATCHES,
            (r"^embeddings\.position_embeddings\.weight$", "embeddings.position_embeddings"),
            *PARTS,
            *GATED,
            *MASK_HEAD,
            (r"^upscale_block\.block\.", "upscale_block."),
        ),
        drop=r"criterion\.",
        finish=with_batch_axis,
    ),
    Naming(
        "DINOv2 or ViT of transformers",
        mark=r"embeddings\.patch_embeddings\.projection\.weight",
        rules=(
            PATCHES,
            (r"^encoder\.layer\.", "layers."),
            *PARTS,
            *GATED,
            *(
                (rf"\.attention\.attention\.{name}\.(\w+)$", rf".attention.in_proj_\1#{index}")
                for index, name in enumerate(("query", "key", "value"))
            ),
            (r"\.attention\.(output\.dense|o_proj)\.", ".attention.out_proj."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"^(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        ),
        drop=UNUSED,
        finish=without_class_position,
    ),
    Naming(
        "timm or DINOv2's release",
        mark=r"blocks\.0\.attn\.qkv\.weight",
        rules=(
            (r"^cls_token$", "embeddings.cls_token"),
            (r"^(reg_token|register_tokens)$", "embeddings.register_tokens"),
            (r"^pos_embed$", "embeddings.position_embeddings"),
            (r"^patch_embed\.proj\.", "embeddings.projection."),
            (r"^blocks\.", "layers."),
            (r"\.attn\.qkv\.", ".attention.in_proj_"),
            (r"\.attn\.proj\.", ".attention.out_proj."),
            (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
            (r"\.mlp\.w12\.", ".mlp.weights_in."),
            (r"\.mlp\.w3\.", ".mlp.weights_out."),
            (r"^norm\.", "layernorm."),
        ),
        drop=UNUSED,
        finish=without_class_position,
    ),
)
