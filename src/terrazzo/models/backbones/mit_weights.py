"""Names of Mix Transformer's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming, shifted

NAMINGS = (
    Naming(
        "NVIDIA's SegFormer",
        mark=r"patch_embed1\.proj\.weight",
        rules=(
            shifted(r"^patch_embed(\d)\.proj\.", "layers.{}.0.projection.", -1),
            shifted(r"^patch_embed(\d)\.norm\.", "layers.{}.0.norm.", -1),
            shifted(r"^block(\d)\.", "layers.{}.1.", -1),
            shifted(r"^norm(\d)\.", "layers.{}.2.", -1),
            (r"\.attn\.q\.(\w+)$", r".attn.attn.in_proj_\1#0"),
            (r"\.attn\.kv\.(\w+)$", r".attn.attn.in_proj_\1#1"),
            (r"\.attn\.proj\.", ".attn.attn.out_proj."),
            (r"\.mlp\.fc1\.", ".ffn.layers.0."),
            (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
            (r"\.mlp\.fc2\.", ".ffn.layers.4."),
        ),
        drop=r"head\.",
    ),
    Naming(
        "transformers",
        mark=r"patch_embeddings\.0\.proj\.weight",
        rules=(
            (r"^patch_embeddings\.(\d)\.proj\.", r"layers.\1.0.projection."),
            (r"^patch_embeddings\.(\d)\.layer_norm\.", r"layers.\1.0.norm."),
            (r"^block\.(\d)\.(\d+)\.layer_norm_([12])\.", r"layers.\1.1.\2.norm\3."),
            (r"^block\.(\d)\.", r"layers.\1.1."),
            (r"^layer_norm\.(\d)\.", r"layers.\1.2."),
            (r"\.attention\.self\.query\.(\w+)$", r".attn.attn.in_proj_\1#0"),
            (r"\.attention\.self\.key\.(\w+)$", r".attn.attn.in_proj_\1#1"),
            (r"\.attention\.self\.value\.(\w+)$", r".attn.attn.in_proj_\1#2"),
            (r"\.attention\.self\.sr\.", ".attn.sr."),
            (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
            (r"\.attention\.output\.dense\.", ".attn.attn.out_proj."),
            (r"\.mlp\.dense1\.", ".ffn.layers.0."),
            (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
            (r"\.mlp\.dense2\.", ".ffn.layers.4."),
        ),
    ),
)
