"""MaskFormer (Cheng et al., NeurIPS 2021): queries read the coarsest map and dot into the pixel decoder's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.mask_classification import MaskClassificationHead
from terrazzo.models.layers import Spec
from terrazzo.models.layers.query_decoder import QueryDecoder, from_config
from terrazzo.models.layers.tokens import SinePositions, as_tokens
from terrazzo.models.losses.set_criterion import (
    Prediction,
)
from terrazzo.registry import MODELS


@MODELS.register
class MaskFormerHead(MaskClassificationHead):
    """MaskFormer (Cheng et al., NeurIPS 2021): queries read the coarsest map and dot into the pixel decoder's."""

    def __init__(
        self,
        *,
        transformer_decoder: Spec,
        positional_encoding: Spec,
        enforce_decoder_input_project: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        last = kwargs["in_channels"][-1]
        self.transformer_decoder = from_config(QueryDecoder, transformer_decoder, "transformer_decoder")
        width = self.transformer_decoder.embed_dims
        projected = enforce_decoder_input_project or last != width
        self.decoder_input_proj = nn.Conv2d(last, width, 1) if projected else nn.Identity()
        self.decoder_pe = from_config(SinePositions, positional_encoding, "positional_encoding")
        self.query_embed = nn.Embedding(self.num_queries, width)
        self.add_query_heads(kwargs["feat_channels"], kwargs["out_channels"])

    def read(self, inputs: Features) -> tuple[Tensor, list[Tensor]]:
        """Mask features, and the queries (N, Q, C) after each layer of the decoder."""
        mask_features, memory = self.pixel_decoder(self.select(inputs))
        memory = self.decoder_input_proj(memory)
        positions = self.decoder_pe(memory)
        memory = as_tokens(memory)  # N, h * w, C
        query_pos = self.query_embed.weight.expand(memory.shape[0], -1, -1)
        query, outputs = torch.zeros_like(query_pos), []
        for layer in self.transformer_decoder.layers:
            query = layer(query, memory, query_pos=query_pos, memory_pos=positions)
            outputs.append(query)
        return mask_features, outputs

    def classify(self, query: Tensor, mask_features: Tensor) -> Prediction:
        query = self.transformer_decoder.post_norm(query)
        return self.cls_embed(query), self.masks(query, mask_features)

    def forward(self, inputs: Features) -> Prediction:
        mask_features, queries = self.read(inputs)
        return self.classify(queries[-1], mask_features)

    def layers(self, inputs: Features) -> list[Prediction]:
        mask_features, queries = self.read(inputs)
        return [self.classify(query, mask_features) for query in queries]
