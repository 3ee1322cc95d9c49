"""MaskFormer and Mask2Former: queries that each predict a class and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import Features
from terrazzo.models.layers import Spec, resize
from terrazzo.models.layers.query_decoder import QueryDecoder, from_config
from terrazzo.models.layers.tokens import SinePositions, as_tokens
from terrazzo.models.losses.mask_set import SetLoss
from terrazzo.models.losses.set_criterion import (
    PointSetCriterion,
    Prediction,
    SetCriterion,
    build_criterion,
    semantic_logits,
)
from terrazzo.registry import MODELS


class MaskClassificationHead(nn.Module):
    """Semantic segmentation as classes and masks of queries (MaskFormer, Cheng et al., NeurIPS 2021).

    A subclass makes the predictions of its decoder's layers. Loss names: "loss_cls" and so on for the last layer,
    "d0.loss_cls" for the first one.
    """

    keeps_specs = ("pixel_decoder",)
    criterion_type = SetCriterion
    threshold = None

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        feat_channels: int,
        out_channels: int,
        num_classes: int,
        num_queries: int,
        pixel_decoder: Spec,
        loss_cls: SetLoss,
        loss_mask: SetLoss,
        loss_dice: SetLoss,
        train_cfg: Spec | None = None,
        in_index: Sequence[int] | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = self.out_channels = num_classes
        self.num_queries = num_queries
        self.in_index = range(len(in_channels)) if in_index is None else in_index
        self.align_corners, self.ignore_index = align_corners, ignore_index
        widths: Spec = {"in_channels": in_channels, "feat_channels": feat_channels, "out_channels": out_channels}
        self.pixel_decoder = MODELS.build(pixel_decoder, "pixel_decoder", **widths)
        options: Spec = {"loss_cls": loss_cls, "loss_mask": loss_mask, "loss_dice": loss_dice}
        options |= {"num_classes": num_classes, "ignore_index": ignore_index}
        self.criterion = build_criterion(self.criterion_type, train_cfg or {}, **options)

    def add_query_heads(self, feat_channels: int, out_channels: int) -> None:
        """Add the layers that turn a query into class scores and into the weights of its mask."""
        self.cls_embed = nn.Linear(feat_channels, self.num_classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(feat_channels, feat_channels),
            nn.ReLU(inplace=True),
            nn.Linear(feat_channels, feat_channels),
            nn.ReLU(inplace=True),
            nn.Linear(feat_channels, out_channels),
        )

    def masks(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """Queries (N, Q, C), features (N, D, h, w) -> mask logits (N, Q, h, w)."""
        return (self.mask_embed(queries) @ mask_features.flatten(2)).unflatten(2, mask_features.shape[2:])

    def select(self, inputs: Features) -> list[Tensor]:
        """The input maps, from fine to coarse."""
        return [inputs[index] for index in self.in_index]

    def layers(self, inputs: Features) -> list[Prediction]:
        """The predictions of the queries after each layer of the decoder."""
        raise NotImplementedError

    def forward(self, inputs: Features) -> Prediction:
        """The prediction of the last layer."""
        raise NotImplementedError

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, K, H, W) at the image's `size`."""
        return semantic_logits(self(inputs), size, self.align_corners)

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of every layer; labels (N, H, W). Raises UserError without an assigner in `train_cfg`."""
        if self.criterion is None:
            raise UserError(f"{type(self).__name__} needs train_cfg.assigner to be trained")
        predictions = self.layers(inputs)
        return self.criterion.layer_losses(predictions, labels, range(len(predictions) - 1))


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
        query_pos = self.query_embed.weight.expand(len(memory), -1, -1)
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
        query_pos = self.query_embed.weight.expand(len(mask_features), -1, -1)
        query = self.query_feat.weight.expand(len(mask_features), -1, -1)
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
