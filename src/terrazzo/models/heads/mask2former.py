"""Mask2Former (Cheng et al., CVPR 2022): each layer's queries read one level, only where their mask is."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.mask_classification import MaskClassificationHead
from terrazzo.models.layers import Spec, resize
from terrazzo.models.layers.query_decoder import QueryDecoder, from_config
from terrazzo.models.layers.tokens import SinePositions, as_tokens
from terrazzo.models.losses.set_criterion import (
    PointSetCriterion,
    Prediction,
)
from terrazzo.registry import MODELS


@MODELS.register
class Mask2FormerHead(MaskClassificationHead):
    """Mask2Former (Cheng et al., CVPR 2022): each layer's queries read one level, only where their mask is.

    Masks are matched and trained at random points (`train_cfg`: num_points, oversample_ratio, importance_sample_ratio).
    """

    criterion_type = PointSetCriterion

    def __init__(
        self,
        *,
        transformer_decoder: Spec,
        positional_encoding: Spec,
        num_transformer_feat_level: int = 3,
        enforce_decoder_input_project: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        feat_channels, out_channels = kwargs["feat_channels"], kwargs["out_channels"]
        self.transformer_decoder = from_config(QueryDecoder, transformer_decoder | {"cross_first": True}, "decoder")
        width = self.transformer_decoder.embed_dims
        projected = enforce_decoder_input_project or width != feat_channels
        self.decoder_input_projs = nn.ModuleList(
            nn.Conv2d(feat_channels, width, 1) if projected else nn.Identity()
            for _ in range(num_transformer_feat_level)
        )
        self.decoder_positional_encoding = from_config(SinePositions, positional_encoding, "positional_encoding")
        self.query_embed = nn.Embedding(self.num_queries, feat_channels)
        self.query_feat = nn.Embedding(self.num_queries, feat_channels)
        self.level_embed = nn.Embedding(num_transformer_feat_level, feat_channels)
        self.add_query_heads(feat_channels, out_channels)

    def read(self, inputs: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Return the normed queries (N, Q, C) and their masks (N, Q, h, w), before the first layer and after each."""
        mask_features, maps = self.pixel_decoder(self.select(inputs))
        levels = []
        for project, x, level in zip(self.decoder_input_projs, maps, self.level_embed.weight, strict=True):
            tokens = as_tokens(project(x)) + level  # N, h * w, C
            levels.append((tokens, self.decoder_positional_encoding(x), x))
        decoder = self.transformer_decoder
        query_pos = self.query_embed.weight.expand(mask_features.shape[0], -1, -1)
        query = self.query_feat.weight.expand(mask_features.shape[0], -1, -1)
        queries = [decoder.post_norm(query)]
        masks = [self.masks(queries[0], mask_features)]
        for index, layer in enumerate(decoder.layers):
            tokens, positions, level = levels[index % len(levels)]
            seen = self.attention_mask(masks[-1], level)
            query = layer(query, tokens, query_pos=query_pos, memory_pos=positions, mask=seen)
            queries.append(decoder.post_norm(query))
            masks.append(self.masks(queries[-1], mask_features))
        return queries, masks

    def attention_mask(self, masks: Tensor, level: Tensor) -> Tensor:
        """Return where in a level each query may attend (N, 1, Q, h * w): in its mask, or anywhere if that is empty."""
        inside = resize(masks.detach(), like=level).flatten(2) >= 0
        return (inside | ~inside.any(-1, keepdim=True)).unsqueeze(1)

    def forward(self, inputs: Features) -> Prediction:
        queries, masks = self.read(inputs)
        return self.cls_embed(queries[-1]), masks[-1]

    def layers(self, inputs: Features) -> list[Prediction]:
        queries, masks = self.read(inputs)
        return [(self.cls_embed(query), mask) for query, mask in zip(queries, masks, strict=True)]
