"""Names of BEiT's and MAE's weights in other releases."""

from __future__ import annotations

import re

import torch

from terrazzo.models.backbones.vit_weights import UNUSED
from terrazzo.models.naming import Naming, Weights

RULES = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^norm\.", "ln1."),
)
DROP = rf"{UNUSED}|rel_pos_bias\.|.*\.attn\.k_bias$"
MARK = r"blocks\.0\.attn\.qkv\.weight"
SHARED = "rel_pos_bias.relative_position_bias_table"  # one table for all layers, as in pretraining


def copy_shared_table(weights: Weights, original: Weights) -> Weights:
    """Copy the table that all layers share to each of them."""
    if SHARED in original:
        for name in [name for name in weights if name.endswith(".attn.qkv.weight")]:
            table = name.replace("qkv.weight", "relative_position_bias_table")
            weights[table] = original[SHARED].clone()
    return weights


def split_bias(weights: Weights, original: Weights) -> Weights:
    """Split the bias of query, key and value into two: the key's has no effect on attention."""
    weights = copy_shared_table(weights, original)
    for name in [name for name in weights if name.endswith(".attn.qkv.bias")]:
        query, _, value = weights.pop(name).chunk(3)
        owner = name.removesuffix("qkv.bias")
        weights |= {f"{owner}q_bias": query.clone(), f"{owner}v_bias": value.clone()}
    return weights


def join_bias(weights: Weights, original: Weights) -> Weights:
    """Join the biases of query and value into one of query, key and value."""
    weights = copy_shared_table(weights, original)
    for name in [name for name in weights if re.search(r"\.attn\.q_bias$", name)]:
        owner = name.removesuffix("q_bias")
        query, value = weights.pop(name), weights.pop(f"{owner}v_bias")
        weights[f"{owner}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return weights


BEIT_NAMINGS = (Naming("BEiT's release or timm", mark=MARK, rules=RULES, drop=DROP, finish=split_bias),)
MAE_NAMINGS = (Naming("MAE's release or timm", mark=MARK, rules=RULES, drop=DROP, finish=join_bias),)
