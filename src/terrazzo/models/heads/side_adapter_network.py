"""The side network of SAN."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.layers import (
    ConvBlock,
    PatchEmbed,
    Spec,
    TransformerEncoderLayer,
    init_transformer,
    resize,
    resize_learned,
    resize_position_embedding,
    to_map,
)
from terrazzo.models.layers.norm import LayerNorm2d


class Perceptron(nn.Module):
    """Linear layers, or 1x1 convolutions, with ReLU between them."""

    def __init__(self, widths: Sequence[int], layer: type[nn.Module], *args: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(width, after, *args) for width, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


class MaskDecoder(nn.Module):
    """Queries and a map -> a mask for each query, and where each head of CLIP's attention is to look for it."""

    def __init__(
        self,
        in_channels: int,
        *,
        num_heads: int,
        num_layers: int = 1,
        embed_channels: int = 256,
        mlp_channels: int = 256,
        num_mlp: int = 3,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_layers = num_heads, num_layers
        hidden = [in_channels, *[mlp_channels] * (num_mlp - 1)]
        self.query_mlp = Perceptron([*hidden, embed_channels], nn.Linear)
        self.pix_mlp = Perceptron([*hidden, embed_channels], nn.Conv2d, 1)
        self.attn_mlp = Perceptron([*hidden, embed_channels * num_heads * num_layers], nn.Conv2d, 1)
        self.bias_scaling = nn.Linear(1, 1) if rescale else nn.Identity()

    def forward(self, query: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query (N, Q, C), x (N, C, h, w) -> masks (N, Q, h, w), biases (N, heads, Q, h, w)."""
        query = self.query_mlp(query)
        masks = (query @ self.pix_mlp(x).flatten(2)).unflatten(2, x.shape[2:])
        attention = self.attn_mlp(x).flatten(2).unflatten(1, (self.num_heads, -1))  # N, heads, D, h * w
        biases = (query.unsqueeze(1) @ attention).unflatten(3, x.shape[2:])
        return masks, self.bias_scaling(biases.unsqueeze(-1)).squeeze(-1)


class SideAdapterNetwork(nn.Module):
    """A small ViT with queries that adds CLIP's maps to its own before the first layers (Xu et al., CVPR 2023)."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        clip_channels: int = 768,
        embed_dims: int = 240,
        patch_size: int = 16,
        patch_bias: bool = True,
        num_queries: int = 100,
        fusion_index: Sequence[int] = (0, 1, 2, 3),
        cfg_encoder: Spec,
        cfg_decoder: Spec,
        norm_cfg: Spec = {"type": "LN", "eps": 1e-6},  # noqa: B006 - never written to
        img_size: int = 640,
    ) -> None:
        super().__init__()

        # positions and queries
        self.depth, self.fusion_index = cfg_encoder["num_encode_layer"], list(fusion_index)
        self.grid = (img_size // patch_size,) * 2
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], embed_dims))
        self.query_pos_embed = nn.Parameter(torch.zeros(1, num_queries, embed_dims))
        self.query_embed = nn.Parameter(torch.zeros(1, num_queries, embed_dims))

        # layers, and what adds the maps of CLIP
        self.patch_embed = PatchEmbed(
            in_channels=in_channels, embed_dims=embed_dims, kernel_size=patch_size, padding=0, bias=patch_bias
        )
        self.encode_layers = nn.ModuleList(
            TransformerEncoderLayer(
                embed_dims,
                cfg_encoder["num_heads"],
                int(cfg_encoder["mlp_ratio"] * embed_dims),
                norm_cfg=norm_cfg,
            )
            for _ in range(self.depth)
        )
        self.conv_clips = nn.ModuleList(
            nn.Sequential(
                LayerNorm2d(clip_channels, eps=norm_cfg.get("eps", 1e-5)),
                ConvBlock(clip_channels, embed_dims, 1, norm_cfg=None, act_cfg=None),
            )
            for _ in self.fusion_index
        )

        # masks
        self.mask_decoder = MaskDecoder(embed_dims, **cfg_decoder)

        # weights
        init_transformer(self)
        for embedding in (self.pos_embed, self.query_embed, self.query_pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)

    def resize_weight(self, name: str, value: Tensor) -> Tensor | None:
        """Resize positions learned at another image size; return None for any other weight."""
        return resize_learned(value, self.grid, extra_tokens=0) if name == "pos_embed" else None

    def fuse(self, index: int, x: Tensor, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Add CLIP's map to the patches of tokens (N, Q + h * w, C), if it joins after layer `index`."""
        if index not in self.fusion_index:
            return x
        order = self.fusion_index.index(index)
        added = resize(self.conv_clips[order](maps[order]), grid).flatten(2).transpose(1, 2)
        queries = self.query_embed.shape[1]
        return torch.cat([x[:, :queries], x[:, queries:] + added], dim=1)

    def forward(self, images: Tensor, maps: Sequence[Tensor], layers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Masks and attention biases from the state after each of `layers`, ascending; counted from 1."""
        patches, grid = self.patch_embed(images)
        queries = self.query_embed.shape[1]
        pos_embed = resize_position_embedding(self.pos_embed, self.grid, grid, extra_tokens=0)
        positions = torch.cat([self.query_pos_embed, pos_embed], dim=1)
        x = torch.cat([self.query_embed.expand(len(images), -1, -1), patches], dim=1) + positions
        x = self.fuse(0, x, maps, grid)
        outputs = []
        for index, layer in enumerate(self.encode_layers, start=1):
            x = self.fuse(index, layer(x), maps, grid)
            if index in layers:
                outputs.append(self.mask_decoder(x[:, :queries], to_map(x[:, queries:], grid)))
            x = x + positions
        return outputs
