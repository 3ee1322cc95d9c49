"""Swin Transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.layers import Spec, build_norm, resize
from terrazzo.models.layers.init import init_transformer
from terrazzo.models.layers.sizes import larger, surely
from terrazzo.models.layers.tokens import Grid, PatchEmbed, as_map, pair, resize_learned, resize_position_embedding
from terrazzo.models.layers.training import DropPath, drop_path_rates
from terrazzo.models.layers.transformer import FeedForward, PreNormLayer
from terrazzo.models.layers.window import WindowAttention, WindowPlan, Windows, per_image, separate
from terrazzo.models.naming import Naming, Weights, shifted
from terrazzo.registry import MODELS
from terrazzo.system.arithmetic import ceil_div


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


class PositionedAttention(WindowAttention):
    """Attention within windows with a learned bias for each relative position."""

    def __init__(self, embed_dims: int, num_heads: int, *, window_size: int, **options: Any) -> None:
        super().__init__(embed_dims, num_heads, **options)
        offsets = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets**2, num_heads))
        positions = torch.arange(window_size)
        offset = positions[:, None] - positions[None, :] + window_size - 1  # from j to i, counted from 0
        index = offset[:, None, :, None] * offsets + offset[None, :, None, :]
        self.register_buffer("relative_position_index", index.reshape(window_size**2, window_size**2))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    relative_position_index: Tensor

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize the table of windows of another size; return None for any other weight."""
        if name != "relative_position_bias_table" or value.ndim != 2:
            return None
        source, own = (math.isqrt(rows) for rows in (len(value), len(self.relative_position_bias_table)))
        if source**2 != len(value):
            return None
        table = value.T.unflatten(1, (source, source)).unsqueeze(0)  # 1, heads, 2n - 1, 2n - 1
        return resize(table, (own, own), mode="bicubic")[0].flatten(1).T

    def scores(self, mask: Tensor | None, images: int) -> Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is None:
            return bias.contiguous().unsqueeze(0)  # 1, heads, L, L
        return per_image(mask + bias, images)


class WindowAttentionBranch(nn.Module):
    """Window attention with stochastic depth, under the names of published checkpoints."""

    def __init__(self, embed_dims: int, num_heads: int, *, drop_path_rate: float, **options: Any) -> None:
        super().__init__()
        self.w_msa = PositionedAttention(embed_dims, num_heads, **options)
        self.drop = DropPath(drop_path_rate)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        return self.drop(self.w_msa.attend(x, windows))


class PatchMerging(nn.Module):
    """Join `kernel_size` x `kernel_size` neighbours and project: tokens and their grid -> fewer tokens, their grid.

    The joined vector runs over channels first, then over the neighbours.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 2,
        stride: int | None = None,
        bias: bool = False,
        norm_cfg: Spec | None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride or kernel_size
        joined = kernel_size**2 * in_channels
        self.norm = build_norm(norm_cfg, joined) if norm_cfg is not None else None
        self.reduction = nn.Linear(joined, out_channels, bias=bias)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        size = self.kernel_size
        bottom, right = (larger((ceil_div(side, self.stride) - 1) * self.stride + size - side, 0) for side in grid)
        x = x.unflatten(1, grid)
        if not (surely(bottom == 0) and surely(right == 0)):
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        x = x.unfold(1, size, self.stride).unfold(2, size, self.stride)  # N, h, w, C, size, size
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(3).flatten(1, 2)
        return self.reduction(x if self.norm is None else self.norm(x)), grid


class SwinStage(nn.Module):
    """Blocks, every second one with shifted windows; `downsample` leads to the next stage.

    `attention` and `ffn` are the settings of the two parts of each block, `options` those of the block itself.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        drop_path_rates: Sequence[float],
        window_size: int,
        attention: Spec,
        ffn: Spec,
        downsample: nn.Module | None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.plain = WindowPlan(window_size)
        self.shifted = WindowPlan(window_size, window_size // 2, self.shift_mask)
        self.blocks = nn.ModuleList()
        for rate in drop_path_rates:
            attn = WindowAttentionBranch(
                embed_dims, num_heads, window_size=window_size, drop_path_rate=rate, **attention
            )
            block = PreNormLayer(embed_dims, attn, FeedForward(embed_dims, drop_path=rate, **ffn), **options)
            self.blocks.append(block)
        self.downsample = downsample

    def shift_mask(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return a penalty where two positions of a shifted window are neighbours only by the cyclic shift."""
        bands = []  # per side: 0 in the windows before the last, then 1, and 2 in what came from the other end
        for side in grid:
            side = ceil_div(side, self.window_size) * self.window_size
            positions = torch.arange(side, device=device)
            bands.append((positions >= side - self.window_size).long() + (positions >= side - self.window_size // 2))
        return separate(3 * bands[0][:, None] + bands[1], self.window_size, -100.0, dtype)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Grid]:
        """Tokens (N, H * W, C) of the grid (H, W) -> tokens, and the next stage's tokens and grid."""
        plans = [plan(grid, x) for plan in (self.plain, self.shifted)]
        for index, block in enumerate(self.blocks):
            x = block(x, plans[index % 2])
        return x, *((x, grid) if self.downsample is None else self.downsample(x, grid))


@MODELS.register
class SwinTransformer(Backbone):
    """Swin Transformer (Liu et al., ICCV 2021) -> the normalised maps of `out_indices`.

    Images of any size: maps are padded to whole windows; absolute position embeddings, where used, are resized.
    """

    stem_parts = ("patch_embed", "absolute_pos_embed", "drop_after_pos")
    stage_parts = ("stages.{0}", "norm{0}")
    namings = NAMINGS

    def __init__(
        self,
        *,
        pretrain_img_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        embed_dims: int = 96,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        strides: Sequence[int] = (4, 2, 2, 2),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)
        self.out_indices = out_indices

        # embedding
        patch_norm_cfg = norm_cfg if patch_norm else None
        self.patch_embed = PatchEmbed(
            in_channels, embed_dims, patch_size, strides[0], padding="corner", norm_cfg=patch_norm_cfg
        )
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            height, width = (length // patch_size for length in pair(pretrain_img_size))
            self.pretrain_grid = height, width
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, height * width, embed_dims))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.drop_after_pos = nn.Dropout(drop_rate)

        # stages
        rates = drop_path_rates(drop_path_rate, sum(depths))
        attention: Spec = {"qkv_bias": qkv_bias, "qk_scale": qk_scale}
        attention |= {"attn_drop": attn_drop_rate, "proj_drop": drop_rate}
        self.stages = nn.ModuleList()
        for index, depth in enumerate(depths):
            width = embed_dims * 2**index
            downsample = None
            if index < len(depths) - 1:
                downsample = PatchMerging(width, 2 * width, stride=strides[index + 1], norm_cfg=patch_norm_cfg)
            stage = SwinStage(
                width,
                num_heads[index],
                drop_path_rates=rates[sum(depths[:index]) :][:depth],
                window_size=window_size,
                attention=attention,
                ffn={"feedforward_channels": int(mlp_ratio * width), "act_cfg": act_cfg, "drop": drop_rate},
                downsample=downsample,
                norm_cfg=norm_cfg,
                with_cp=with_cp,
            )
            self.stages.append(stage)

        # norms of the outputs
        for index in out_indices:
            self.add_module(f"norm{index}", build_norm(norm_cfg, embed_dims * 2**index))

        # weights
        init_transformer(self)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.pretrain_grid, extra_tokens=0) if name == "absolute_pos_embed" else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens, grid = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            positions = self.absolute_pos_embed
            tokens = tokens + resize_position_embedding(positions, self.pretrain_grid, grid, extra_tokens=0)
        x = self.drop_after_pos(tokens)
        outputs = []
        for index, stage in enumerate(self.stages):
            output, x, next_grid = stage(x, grid)
            if index in self.out_indices:
                outputs.append(as_map(getattr(self, f"norm{index}")(output), grid))
            grid = next_grid
        return tuple(outputs)
