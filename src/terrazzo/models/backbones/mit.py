"""Mix Transformer, the backbone of SegFormer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_activation, build_norm
from terrazzo.models.layers.init import init_convolutions, init_transformer
from terrazzo.models.layers.tokens import Grid, PatchEmbed, as_map, as_tokens, lay_for_depthwise
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.layers.transformer import EfficientAttention, PreNormLayer
from terrazzo.models.naming import Naming, shifted
from terrazzo.registry import MODELS

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


class MixFeedForward(nn.Module):
    """Feed-forward network with a 3x3 depthwise convolution, which encodes the position of a token."""

    def __init__(self, embed_dims: int, channels: int, *, act_cfg: Spec, drop: float, drop_path: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(embed_dims, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            build_activation(act_cfg),
            nn.Dropout(drop),
            nn.Conv2d(channels, embed_dims, 1),
            nn.Dropout(drop),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) of the grid (h, w) -> the residual branch."""
        return self.drop_path(as_tokens(self.layers(lay_for_depthwise(as_map(x, grid)))))


class MixTransformerLayer(PreNormLayer):
    """Efficient attention, then the mixing feed-forward network; both read the grid."""

    def residuals(self, x: Tensor, layout: Grid) -> Tensor:
        x = x + self.attn(self.norm1(x), layout)
        return x + self.ffn(self.norm2(x), layout)


@MODELS.register
class MixVisionTransformer(Backbone):
    """MiT (SegFormer: Xie et al., NeurIPS 2021) -> the maps of `out_indices`, without position embeddings.

    Stage i has `embed_dims * num_heads[i]` channels and shrinks its keys and values by `sr_ratios[i]`.
    """

    stage_parts = ("layers.{0}",)
    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embed_dims: int = 64,
        num_stages: int = 4,
        num_layers: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        patch_sizes: Sequence[int] = (7, 3, 3, 3),
        strides: Sequence[int] = (4, 2, 2, 2),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN", "eps": 1e-6},  # noqa: B006 - never written to
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices

        # stages: patch embedding, layers, norm
        rates = iter(drop_path_rates(drop_path_rate, sum(num_layers)))
        self.layers = nn.ModuleList()
        attention: Spec = {"attn_drop": attn_drop_rate, "proj_drop": drop_rate, "qkv_bias": qkv_bias}
        width = in_channels
        for stage in range(num_stages):
            channels = embed_dims * num_heads[stage]
            patch = patch_sizes[stage]
            embed = PatchEmbed(width, channels, patch, strides[stage], padding=patch // 2, norm_cfg=norm_cfg)
            attention |= {"sr_ratio": sr_ratios[stage], "norm_cfg": norm_cfg}
            blocks = nn.ModuleList()
            for _ in range(num_layers[stage]):
                rate = next(rates)
                attn = EfficientAttention(channels, num_heads[stage], drop_path=rate, **attention)
                hidden = int(mlp_ratio * channels)
                ffn = MixFeedForward(channels, hidden, act_cfg=act_cfg, drop=drop_rate, drop_path=rate)
                blocks.append(MixTransformerLayer(channels, attn, ffn, norm_cfg=norm_cfg, with_cp=with_cp))
            self.layers.append(nn.ModuleList([embed, blocks, build_norm(norm_cfg, channels)]))
            width = channels

        # weights
        init_transformer(self)
        init_convolutions(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for index, stage in enumerate(self.layers):
            embed, blocks, norm = stage.children()
            x, grid = embed(x)
            for block in blocks.children():
                x = block(x, grid)
            x = as_map(norm(x), grid)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
