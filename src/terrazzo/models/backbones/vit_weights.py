"""Names of a vision transformer's weights in other releases."""

from __future__ import annotations

import torch

from terrazzo.models.naming import Naming, Weights

BLOCKS = (
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^norm1?\.", "ln1."),
)
# parts of classifiers, of DeiT's distillation and of MAE's and BEiT's pretraining
UNUSED = r"head\.|head_dist\.|heads\.|fc_norm\.|pre_logits\.|dist_token$|mask_token$|decoder_|neck\.|lm_head\."


def without_distillation(weights: Weights, original: Weights) -> Weights:
    """Drop the position of DeiT's distillation token, which follows the class token's."""
    if "dist_token" in original:
        positions = weights["pos_embed"]
        weights["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    return weights


NAMINGS = (
    Naming(
        "timm, DeiT's or MAE's release",
        mark=r"blocks\.0\.attn\.qkv\.weight",
        rules=((r"^patch_embed\.proj\.", "patch_embed.projection."), *BLOCKS, (r"^norm_pre\.", "ln_pre.")),
        drop=UNUSED,
        finish=without_distillation,
    ),
    Naming(
        "MMPretrain",
        mark=r"layers\.0\.attn\.qkv\.weight",
        rules=(*BLOCKS, (r"^pre_norm\.", "ln_pre.")),
        drop=UNUSED,
        finish=without_distillation,
    ),
    Naming(
        "torchvision",
        mark=r"conv_proj\.weight",
        rules=(
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.projection."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"layers.\1."),
            (r"\.ln_([12])\.", r".ln\1."),
            (r"\.self_attention\.", ".attn.attn."),
            (r"\.mlp\.(linear_1|0)\.", ".ffn.layers.0.0."),
            (r"\.mlp\.(linear_2|3)\.", ".ffn.layers.1."),
            (r"^encoder\.ln\.", "ln1."),
        ),
        drop=UNUSED,
    ),
    Naming(
        "OpenAI's CLIP",
        mark=r"class_embedding",
        rules=(
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^conv1\.", "patch_embed.projection."),
            (r"^transformer\.resblocks\.", "layers."),
            (r"\.ln_([12])\.", r".ln\1."),
            (r"\.attn\.", ".attn.attn."),
            (r"\.mlp\.c_fc\.", ".ffn.layers.0.0."),
            (r"\.mlp\.c_proj\.", ".ffn.layers.1."),
            (r"^ln_post\.", "ln1."),
        ),
        drop=r"proj$",
    ),
)
