"""Twins: transformers with conditional position encodings, and with locally grouped attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_norm
from terrazzo.models.layers.init import init_transformer
from terrazzo.models.layers.sizes import surely
from terrazzo.models.layers.tokens import Grid, PatchEmbed, as_map, as_tokens
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.layers.transformer import EfficientAttention, FeedForward, PreNormLayer
from terrazzo.models.layers.window import WindowAttention, WindowPlan, separate
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS
from terrazzo.system.arithmetic import ceil_div


def by_attention(weights: Weights, original: Weights) -> Weights:
    """Rename the output projection of attention to the shrunken map, which is torch's here, unlike that in windows."""
    renamed = {}
    for name, value in weights.items():
        owner, found, leaf = name.partition(".attn.proj.")
        shrunken = found and f"{owner}.attn.qkv.weight" not in weights
        renamed[f"{owner}.attn.attn.out_proj.{leaf}" if shrunken else name] = value
    return renamed


QUERIES = ((r"\.attn\.q\.(\w+)$", r".attn.attn.in_proj_\1#0"), (r"\.attn\.kv\.(\w+)$", r".attn.attn.in_proj_\1#1"))

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


class PositionEncoding(nn.Module):
    """Conditional position encoding: a depthwise convolution, added (Chu et al., 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) -> tokens."""
        return x + as_tokens(self.proj(as_map(x, grid)))


class LocalAttention(WindowAttention):
    """Attention within windows; no token of the map attends to the padding that completes them."""

    def __init__(self, embed_dims: int, num_heads: int, *, window_size: int, drop_path: float, **options: Any) -> None:
        super().__init__(embed_dims, num_heads, **options)
        self.window_size = window_size
        self.windows = WindowPlan(window_size, make_mask=self.padding_mask)
        self.drop_path = DropPath(drop_path)

    def padding_mask(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Return a penalty between positions inside and outside the map; None where whole windows fit."""
        bottom, right = (ceil_div(side, self.window_size) * self.window_size - side for side in grid)
        if surely(bottom == 0) and surely(right == 0):
            return None
        outside = F.pad(torch.zeros(grid, device=device), (0, right, 0, bottom), value=1.0)
        return separate(outside, self.window_size, -1000.0, dtype)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) -> the residual branch."""
        return self.drop_path(self.attend(x, self.windows(grid, x)))


@MODELS.register
class PCPVT(Backbone):
    """Twins-PCPVT (Chu et al., NeurIPS 2021) -> the maps of `out_indices`.

    A pyramid of layers that attend to a shrunken map; positions come from a convolution after each stage's first layer.
    """

    stage_parts = ("patch_embeds.{0}", "layers.{0}", "position_encodings.{0}", "norm_list.{0}")
    namings = NAMINGS

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        patch_sizes: Sequence[int] = (4, 2, 2, 2),
        strides: Sequence[int] = (4, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        qkv_bias: bool = False,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        depths: Sequence[int] = (3, 4, 6, 3),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        norm_after_stage: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices
        self.patch_embeds = nn.ModuleList()
        self.layers = nn.ModuleList()
        self.position_encodings = nn.ModuleList(PositionEncoding(width) for width in embed_dims)

        # stages: patch embedding, then layers
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        for stage, depth in enumerate(depths):
            width = embed_dims[stage]
            source = in_channels if stage == 0 else embed_dims[stage - 1]
            embed = PatchEmbed(source, width, patch_sizes[stage], strides[stage], padding="corner", norm_cfg=norm_cfg)
            self.patch_embeds.append(embed)
            layers = nn.ModuleList()
            options: Spec = {"qkv_bias": qkv_bias, "attn_drop": attn_drop_rate, "proj_drop": drop_rate}
            for index in range(depth):
                options["drop_path"] = rate = next(rates)
                attn = self.make_attention(stage, index, width, num_heads[stage], sr_ratios[stage], norm_cfg, **options)
                ffn = FeedForward(width, int(mlp_ratios[stage] * width), drop=drop_rate, drop_path=rate)
                layers.append(PreNormLayer(width, attn, ffn, norm_cfg=norm_cfg))
            self.layers.append(layers)

        # norms of the outputs
        if norm_after_stage:
            self.norm_list = nn.ModuleList(build_norm(norm_cfg, width) for width in embed_dims)
        self.norm_after_stage = norm_after_stage
        init_transformer(self)

    def make_attention(
        self, stage: int, index: int, width: int, heads: int, sr_ratio: int, norm_cfg: Spec, **options: Any
    ) -> nn.Module:
        """The attention of one layer."""
        return EfficientAttention(width, heads, sr_ratio=sr_ratio, norm_cfg=norm_cfg, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for stage, (embed, layers, encode) in enumerate(
            zip(self.patch_embeds, self.layers, self.position_encodings, strict=True)
        ):
            tokens, grid = embed(x)
            for index, layer in enumerate(layers.children()):
                tokens = layer(tokens, grid)
                if index == 0:
                    tokens = encode(tokens, grid)
            x = as_map(self.norm_list[stage](tokens) if self.norm_after_stage else tokens, grid)
            if stage in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


@MODELS.register
class SVT(PCPVT):
    """Twins-SVT: layers attend alternately within windows and to a shrunken map."""

    window_sizes: Sequence[int] = ()  # none: all layers are PCPVT's

    def __init__(
        self,
        *,
        windiow_sizes: Sequence[int] = (7, 7, 7, 7),  # as spelled in published configs
        norm_after_stage: bool = True,
        **kwargs: Any,
    ) -> None:
        self.window_sizes = windiow_sizes
        super().__init__(norm_after_stage=norm_after_stage, **kwargs)

    def make_attention(
        self, stage: int, index: int, width: int, heads: int, sr_ratio: int, norm_cfg: Spec, **options: Any
    ) -> nn.Module:
        if index % 2 == 1 or not self.window_sizes:
            return super().make_attention(stage, index, width, heads, sr_ratio, norm_cfg, **options)
        return LocalAttention(width, heads, window_size=self.window_sizes[stage], **options)
