"""MaskFormer head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.mask_classification import MaskClassificationHead
from terrazzo.models.layers import Spec
from terrazzo.models.layers.query_decoder import QueryDecoder, from_config
from terrazzo.models.layers.sine_position import SinePositions
from terrazzo.models.losses.set_criterion import Prediction
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
        last, feat_channels, out_channels = (
            kwargs["in_channels"][-1],
            kwargs["feat_channels"],
            kwargs["out_channels"],
        )
        self.transformer_decoder = from_config(QueryDecoder, transformer_decoder, "transformer_decoder")
        width = self.transformer_decoder.embed_dims
        projected = enforce_decoder_input_project or last != width
        self.decoder_input_proj = nn.Conv2d(last, width, 1) if projected else nn.Identity()
        self.decoder_pe = from_config(SinePositions, positional_encoding, "positional_encoding")
        self.query_embed = nn.Embedding(self.num_queries, width)
        self.add_query_heads(feat_channels, out_channels)

    def decode(self, memory: Tensor) -> list[Tensor]:
        """The queries (N, Q, C) after each layer of the decoder; memory (N, C, h, w)."""
        decoder = self.transformer_decoder
        positions = self.decoder_pe(memory)
        memory = memory.flatten(2).transpose(1, 2)  # N, h * w, C
        query_pos = self.query_embed.weight.expand(len(memory), -1, -1)
        query, outputs = torch.zeros_like(query_pos), []
        for layer in decoder.layers:
            query = layer(query, memory, query_pos=query_pos, memory_pos=positions)
            outputs.append(query)
        return outputs

    def read(self, inputs: Features) -> tuple[Tensor, list[Tensor]]:
        """Mask features, and the queries after each layer."""
        mask_features, memory = self.pixel_decoder(self.select(inputs))
        return mask_features, self.decode(self.decoder_input_proj(memory))

    def classify(self, query: Tensor, mask_features: Tensor) -> Prediction:
        query = self.transformer_decoder.post_norm(query)
        return self.cls_embed(query), self.masks(query, mask_features)

    def forward(self, inputs: Features) -> Prediction:
        mask_features, queries = self.read(inputs)
        return self.classify(queries[-1], mask_features)

    def layers(self, inputs: Features) -> list[Prediction]:
        mask_features, queries = self.read(inputs)
        return [self.classify(query, mask_features) for query in queries]
