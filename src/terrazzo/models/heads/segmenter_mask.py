"""Segmenter's mask transformer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import Spec, TransformerEncoderLayer, build_norm, drop_path_rates, init_transformer, to_map
from terrazzo.registry import MODELS


@MODELS.register
class SegmenterMaskTransformerHead(DecodeHead):
    """Segmenter head (Strudel et al., ICCV 2021): patches and class embeddings attend to each other; a mask is their
    cosine similarity."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        embed_dims: int,
        mlp_ratio: float = 4,
        drop_path_rate: float = 0.1,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        num_fcs: int = 2,
        qkv_bias: bool = True,
        act_cfg: Spec = {"type": "GELU"},  # noqa: B006 - never written to
        norm_cfg: Spec = {"type": "LN"},  # noqa: B006 - never written to
        init_std: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        del self.conv_seg  # the masks are the logits

        # layers
        self.cls_emb = nn.Parameter(torch.zeros(1, self.num_classes, embed_dims))
        options: Spec = {"drop_rate": drop_rate, "attn_drop_rate": attn_drop_rate, "num_fcs": num_fcs}
        options |= {"qkv_bias": qkv_bias, "act_cfg": act_cfg, "norm_cfg": norm_cfg}
        hidden = int(mlp_ratio * embed_dims)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, hidden, drop_path_rate=rate, **options)
            for rate in drop_path_rates(drop_path_rate, num_layers)
        )

        # projections and norms
        self.dec_proj = nn.Linear(self.in_channels, embed_dims)
        self.patch_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.classes_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.decoder_norm = build_norm(norm_cfg, embed_dims)
        self.mask_norm = build_norm(norm_cfg, self.num_classes)

        # weights
        init_transformer(self, std=init_std)
        nn.init.trunc_normal_(self.cls_emb, std=init_std)
        for projection in (self.patch_proj, self.classes_proj):
            nn.init.normal_(projection.weight, std=init_std)

    def forward(self, inputs: Features) -> Tensor:
        x = self.select(inputs)  # N, in_channels, h, w
        grid = x.shape[-2:]
        patches = self.dec_proj(x.flatten(2).transpose(1, 2))
        tokens = torch.cat([patches, self.cls_emb.expand(x.shape[0], -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.decoder_norm(tokens)
        patches, classes = tokens[:, : -self.num_classes], tokens[:, -self.num_classes :]
        patches = F.normalize(self.patch_proj(patches), dim=-1)
        classes = F.normalize(self.classes_proj(classes), dim=-1)
        masks = patches @ classes.transpose(1, 2)  # N, h * w, classes
        return to_map(self.mask_norm(masks), grid)
