"""BEiT, a vision transformer with relative positions, and MAE's fine-tuned one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.backbones.base import Backbone
from terrazzo.models.backbones.vit import UNUSED
from terrazzo.models.layers import (
    DropPath,
    FeedForward,
    PatchEmbed,
    Spec,
    build_norm,
    drop_path_rates,
    init_transformer,
    maybe_checkpoint,
    resize,
    resize_learned,
    resize_position_embedding,
    to_map,
)
from terrazzo.models.layers.sizes import same_sizes
from terrazzo.models.layers.tokens import pair
from terrazzo.models.naming import Naming, Weights
from terrazzo.registry import MODELS

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


Grid = tuple[int, int]
EXTRA_ROWS = 3  # the table's last rows: class token to patch, patch to class token, class token to itself


def relative_position_index(grid: Grid, device: torch.device | None = None) -> Tensor:
    """Return the row of the bias table for each pair of tokens (1 + h * w, 1 + h * w), the class token first."""
    height, width = grid
    positions = torch.arange(height * width, device=device)
    rows = positions // width
    columns = positions - rows * width
    down = rows[:, None] - rows[None] + height - 1  # from 0 to 2 * height - 2
    right = columns[:, None] - columns[None] + width - 1
    index = F.pad(down * (2 * width - 1) + right, (1, 0, 1, 0))
    last = (2 * height - 1) * (2 * width - 1) + EXTRA_ROWS - 1
    index[0, :], index[:, 0], index[0, 0] = last - 2, last - 1, last
    return index


def resize_table(table: Tensor, source: Grid, grid: Grid) -> Tensor:
    """Stretch the bias table (rows, heads) from the `source` grid to `grid`; the extra rows stay."""
    height, width = (2 * length - 1 for length in source)
    offsets = table[:-EXTRA_ROWS].T.unflatten(1, (height, width)).unsqueeze(0)  # 1, heads, 2h - 1, 2w - 1
    offsets = resize(offsets, [2 * length - 1 for length in grid], mode="bicubic")
    return torch.cat([offsets[0].flatten(1).T, table[-EXTRA_ROWS:]])


class BEiTAttention(nn.Module):
    """Self-attention with a learned bias for each relative position.

    `bias` is that of query, key and value: True, False, or "qv_bias" for a key without one.
    """

    relative_position_index: Tensor

    def __init__(
        self, embed_dims: int, num_heads: int, grid: Grid, *, bias: bool | str, attn_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.grid = num_heads, grid
        self.with_qv_bias = bias == "qv_bias"
        if self.with_qv_bias:
            self.q_bias = nn.Parameter(torch.zeros(embed_dims))
            self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + EXTRA_ROWS
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(grid))
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=bias is True)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize the table of a square grid of another size; return None for any other weight."""
        if name != "relative_position_bias_table" or value.ndim != 2:
            return None
        side = math.isqrt(max(len(value) - EXTRA_ROWS, 0))
        if side % 2 == 0 or side**2 + EXTRA_ROWS != len(value):
            return None
        return resize_table(value, (side // 2 + 1,) * 2, self.grid)

    def position_bias(self, grid: Grid, index: Tensor) -> Tensor:
        """(heads, L, L), added to the scores."""
        table: Tensor = self.relative_position_bias_table
        if not same_sizes(grid, self.grid):
            table = resize_table(table, self.grid, grid)
        return table[index].permute(2, 0, 1)

    def forward(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        bias: Tensor | None = self.qkv.bias
        if self.with_qv_bias:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each N, heads, L, C / heads
        positions = self.position_bias(grid, index).unsqueeze(0)
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=positions, dropout_p=dropout)
        return self.proj(x.transpose(1, 2).flatten(2))


class BEiTLayer(nn.Module):
    """A pre-norm transformer layer whose branches have learned scales."""

    gamma_1: Tensor | None
    gamma_2: Tensor | None

    def __init__(
        self,
        embed_dims: int,
        attn: BEiTAttention,
        ffn: FeedForward,
        *,
        drop_path_rate: float,
        init_values: float | None,
        norm_cfg: Spec,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        for name in ("gamma_1", "gamma_2"):
            scales = None if init_values is None else nn.Parameter(torch.full((embed_dims,), float(init_values)))
            self.register_parameter(name, scales)
        self.ln1 = build_norm(norm_cfg, embed_dims)
        self.attn = attn
        self.ln2 = build_norm(norm_cfg, embed_dims)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path_rate)

    def residuals(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        x = x + self.drop_path(scale_channels(self.attn(self.ln1(x), grid, index), self.gamma_1))
        return x + self.drop_path(scale_channels(self.ffn(self.ln2(x)), self.gamma_2))

    def forward(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        return maybe_checkpoint(self.residuals, x, grid, index, enabled=self.with_cp)


def scale_channels(x: Tensor, gamma: Tensor | None) -> Tensor:
    """Multiply each channel of `x` by its `gamma`, if any."""
    return x if gamma is None else gamma * x


@MODELS.register
class BEiT(Backbone):
    """BEiT (Bao et al., ICLR 2022) -> maps (N, embed_dims, h, w) of the layers in `out_indices`, -1 the last.

    Runs at any size: the tables of relative positions are stretched from the grid of `img_size`. `init_values` starts
    the branches' scales (None: no scales).
    """

    stem_parts = ("cls_token", "pos_embed", "patch_embed")
    stage_parts = ("layers.{0}",)
    namings = BEIT_NAMINGS

    full_bias = False  # of query, key and value, regardless of `qv_bias`

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        out_indices: int | Sequence[int] = -1,
        qv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        patch_norm: bool = False,
        final_norm: bool = False,
        num_fcs: int = 2,
        init_values: float | None = 0.1,
        with_cp: bool = False,
        **freezing: Any,
    ) -> None:
        super().__init__(**freezing)

        # grid of patches and outputs
        height, width = pair(img_size)
        self.grid = (height // patch_size, width // patch_size)
        chosen = [out_indices] if isinstance(out_indices, int) else out_indices
        self.out_indices = [index % num_layers for index in chosen]

        # embedding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        patch_norm_cfg = norm_cfg if patch_norm else None
        self.patch_embed = PatchEmbed(in_channels, embed_dims, patch_size, padding="corner", norm_cfg=patch_norm_cfg)

        # layers
        bias = self.full_bias or ("qv_bias" if qv_bias else False)
        options: Spec = {"init_values": init_values, "norm_cfg": norm_cfg, "with_cp": with_cp}
        layers = []
        for rate in drop_path_rates(drop_path_rate, num_layers):
            attn = BEiTAttention(embed_dims, num_heads, self.grid, bias=bias, attn_drop=attn_drop_rate)
            ffn = FeedForward(embed_dims, int(mlp_ratio * embed_dims), num_fcs=num_fcs, act_cfg=act_cfg)
            layers.append(BEiTLayer(embed_dims, attn, ffn, drop_path_rate=rate, **options))
        self.layers = nn.ModuleList(layers)
        self.ln1 = build_norm(norm_cfg, embed_dims) if final_norm else None

        # weights
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        init_transformer(self)
        shrink_branches(layers)

    def embed(self, patches: Tensor, grid: Grid) -> Tensor:
        """The layers' input (N, 1 + h * w, C) from the patches (N, h * w, C)."""
        return torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        patches, grid = self.patch_embed(images)
        if same_sizes(grid, self.grid):
            index = cast("BEiTLayer", self.layers[0]).attn.relative_position_index
        else:
            index = relative_position_index(grid, images.device)
        x = self.embed(patches, grid)
        outputs = []
        for number, layer in enumerate(self.layers):
            x = layer(x, grid, index)
            if self.ln1 is not None and number == len(self.layers) - 1:
                x = self.ln1(x)
            if number in self.out_indices:
                outputs.append(to_map(x[:, 1:], grid))
        return tuple(outputs)


@torch.no_grad()
def shrink_branches(layers: Sequence[BEiTLayer]) -> None:
    """Divide the last weights of each branch by the square root of twice the layer's number (BEiT, appendix)."""
    for number, layer in enumerate(layers, start=1):
        for linear in (layer.attn.proj, [m for m in layer.ffn.modules() if isinstance(m, nn.Linear)][-1]):
            linear.weight.div_((2 * number) ** 0.5)


@MODELS.register
class MAE(BEiT):
    """MAE (He et al., CVPR 2022), fine-tuned: BEiT's layers with a full query, key and value bias, and absolute
    positions too.

    Runs at any size: the position embeddings are interpolated as well.
    """

    namings = MAE_NAMINGS

    full_bias = True

    def __init__(self, *, embed_dims: int = 768, **kwargs: Any) -> None:
        super().__init__(embed_dims=embed_dims, **kwargs)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.grid, extra_tokens=1) if name == "pos_embed" else None

    def embed(self, patches: Tensor, grid: Grid) -> Tensor:
        return super().embed(patches, grid) + resize_position_embedding(self.pos_embed, self.grid, grid)
