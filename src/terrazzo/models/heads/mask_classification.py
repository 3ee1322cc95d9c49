"""MaskFormer and Mask2Former: queries that each predict a class and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import Features, input_maps
from terrazzo.models.layers import Spec
from terrazzo.models.losses.mask_set import SetLoss
from terrazzo.models.losses.set_criterion import (
    Prediction,
    SetCriterion,
    build_criterion,
    semantic_logits,
)
from terrazzo.registry import MODELS


class QueryHead(nn.Module):
    """Semantic segmentation as classes and masks of queries (MaskFormer, Cheng et al., NeurIPS 2021).

    A subclass gives the predictions of its layers. Loss names: "loss_cls" and so on for the last layer, "d0.loss_cls"
    for the first one.
    """

    criterion_type = SetCriterion
    threshold = None

    def __init__(
        self,
        *,
        num_classes: int,
        loss_cls: SetLoss,
        loss_mask: SetLoss,
        loss_dice: SetLoss,
        train_cfg: Spec | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = self.out_channels = num_classes
        self.align_corners, self.ignore_index = align_corners, ignore_index
        options: Spec = {"loss_cls": loss_cls, "loss_mask": loss_mask, "loss_dice": loss_dice}
        options |= {"num_classes": num_classes, "ignore_index": ignore_index}
        self.criterion = build_criterion(self.criterion_type, train_cfg or {}, **options)

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


class MaskClassificationHead(QueryHead):
    """Queries that read the maps of a pixel decoder; a subclass makes the predictions of its decoder's layers."""

    keeps_specs = ("pixel_decoder",)

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        feat_channels: int,
        out_channels: int,
        num_queries: int,
        pixel_decoder: Spec,
        in_index: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_queries = num_queries
        self.in_index = range(len(in_channels)) if in_index is None else in_index
        widths: Spec = {"in_channels": in_channels, "feat_channels": feat_channels, "out_channels": out_channels}
        self.pixel_decoder = MODELS.build(pixel_decoder, "pixel_decoder", **widths)

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
        return input_maps(inputs, self.in_index, self)
