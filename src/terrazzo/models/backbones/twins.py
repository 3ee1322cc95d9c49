"""Twins: transformers with conditional position encodings, and with locally grouped attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers import Spec, build_norm
from terrazzo.models.layers.init import init_transformer
from terrazzo.models.layers.tokens import Grid, PatchEmbed, as_map, as_tokens
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.layers.transformer import EfficientAttention, FeedForward, PreNormLayer
from terrazzo.models.layers.window import WindowPlan, per_image, separate
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS


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


class LocalAttention(nn.Module):
    """Attention within windows; no token of the map attends to the padding that completes them."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        window_size: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, qk_scale
        self.window_size = window_size
        self.windows = WindowPlan(window_size, make_mask=self.padding_mask)
        self.qkv = nn.Linear(embed_dims, embed_dims * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)
        self.drop_path = DropPath(drop_path)

    def padding_mask(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Return a penalty between positions inside and outside the map; None where whole windows fit."""
        bottom, right = (-side % self.window_size for side in grid)
        if not bottom and not right:
            return None
        outside = F.pad(torch.zeros(grid, device=device), (0, right, 0, bottom), value=1.0)
        return separate(outside, self.window_size, -1000.0, dtype)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (N, h * w, C) -> the residual branch."""
        windows = self.windows(grid, x)
        qkv = windows.split(self.qkv(windows.extend(x)))  # N * windows, L, 3 * C
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if windows.mask is None else per_image(windows.mask, x.shape[0])
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=self.scale)
        return self.drop_path(self.proj_drop(self.proj(windows.join(out.transpose(1, 2).flatten(2)))))


@MODELS.register
class PCPVT(nn.Module):
    """Twins-PCPVT (Chu et al., NeurIPS 2021) -> the maps of `out_indices`.

    A pyramid of layers that attend to a shrunken map; positions come from a convolution after each stage's first layer.
    """

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
    ) -> None:
        super().__init__()
        self.out_indices = out_indices
        self.patch_embeds = nn.ModuleList()
        self.layers = nn.ModuleList()
        self.position_encodings = nn.ModuleList(PositionEncoding(width) for width in embed_dims)

        # stages: patch embedding, then layers
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        for stage, depth in enumerate(depths):
            width = embed_dims[stage]
            embed = PatchEmbed(
                in_channels=in_channels if stage == 0 else embed_dims[stage - 1],
                embed_dims=width,
                kernel_size=patch_sizes[stage],
                stride=strides[stage],
                padding="corner",
                norm_cfg=norm_cfg,
            )
            self.patch_embeds.append(embed)
            layers = nn.ModuleList()
            for index in range(depth):
                drops: Spec = {"drop_path": next(rates)}
                attn = self.make_attention(
                    stage,
                    index,
                    width,
                    num_heads[stage],
                    sr_ratio=sr_ratios[stage],
                    norm_cfg=norm_cfg,
                    qkv_bias=qkv_bias,
                    attn_drop=attn_drop_rate,
                    proj_drop=drop_rate,
                    **drops,
                )
                hidden = int(mlp_ratios[stage] * width)
                ffn = FeedForward(width, hidden, drop=drop_rate, **drops)
                layers.append(PreNormLayer(width, attn, ffn, norm_cfg=norm_cfg))
            self.layers.append(layers)

        # norms of the outputs
        if norm_after_stage:
            self.norm_list = nn.ModuleList(build_norm(norm_cfg, width) for width in embed_dims)
        self.norm_after_stage = norm_after_stage
        init_transformer(self)

    def make_attention(self, stage: int, index: int, width: int, heads: int, **options: Any) -> nn.Module:
        """The attention of one layer."""
        return EfficientAttention(width, heads, **options)

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
            if self.norm_after_stage:
                tokens = self.norm_list[stage](tokens)
            x = as_map(tokens, grid)
            if stage in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


@MODELS.register
class SVT(PCPVT):
    """Twins-SVT: layers attend alternately within windows and to a shrunken map."""

    def __init__(
        self,
        *,
        windiow_sizes: Sequence[int] = (7, 7, 7, 7),  # as spelled in published configs
        norm_after_stage: bool = True,
        **kwargs: Any,
    ) -> None:
        self.window_sizes = windiow_sizes
        super().__init__(norm_after_stage=norm_after_stage, **kwargs)

    def make_attention(self, stage: int, index: int, width: int, heads: int, **options: Any) -> nn.Module:
        if index % 2 == 1:
            return super().make_attention(stage, index, width, heads, **options)
        del options["sr_ratio"], options["norm_cfg"]
        return LocalAttention(width, heads, window_size=self.window_sizes[stage], qk_scale=None, **options)
