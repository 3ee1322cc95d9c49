"""What MaskFormer and Mask2Former share: queries that each answer with a class and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.layers import resize
from terrazzo.models.losses.mask_set import SetLoss, mean_over_processes, no_loss, segments
from terrazzo.models.losses.matching import MaskPseudoSampler, Match
from terrazzo.registry import MODELS

Spec = dict[str, Any]
Prediction = tuple[Tensor, Tensor]  # class scores (N, Q, K + 1) and masks (N, Q, h, w), both logits


class MaskClassificationHead(nn.Module):
    """Semantic segmentation as classes and masks of queries (MaskFormer, Cheng et al., NeurIPS 2021).

    A subclass makes the predictions of its decoder's layers and says how a layer is trained. The last class is "no
    object". Loss names: "loss_cls" and so on for the last layer, "d0.loss_cls" for the first one.
    """

    keeps_specs = ("pixel_decoder",)
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
        self.ignore_index, self.align_corners = ignore_index, align_corners
        self.train_cfg = train_cfg or {}
        self.pixel_decoder = MODELS.build(
            pixel_decoder,
            "pixel_decoder",
            in_channels=in_channels,
            feat_channels=feat_channels,
            out_channels=out_channels,
        )
        self.loss_cls, self.loss_mask, self.loss_dice = loss_cls, loss_mask, loss_dice
        if self.train_cfg:
            self.assigner = MODELS.build(self.train_cfg["assigner"], "train_cfg.assigner")
            self.sampler = MODELS.build(self.train_cfg.get("sampler", {"type": "MaskPseudoSampler"}))
        else:
            self.assigner, self.sampler = None, MaskPseudoSampler()

    def add_query_heads(self, feat_channels: int, out_channels: int) -> None:
        """What turns a query into class scores and into the weights of its mask."""
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
        """What the queries answer after each layer of the decoder."""
        raise NotImplementedError

    def forward(self, inputs: Features) -> Prediction:
        """The answer of the last layer."""
        raise NotImplementedError

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, K, H, W) for an image of `size`: masks are resized first, then weighed by their classes."""
        scores, masks = self(inputs)
        masks = resize(masks, size, align_corners=self.align_corners).sigmoid()
        classes = scores.softmax(-1)[..., :-1]  # N, Q, K
        return (classes.transpose(1, 2) @ masks.flatten(2)).unflatten(2, tuple(size))

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of every layer; labels (N, H, W)."""
        images = [segments(label, self.ignore_index) for label in labels]
        *earlier, last = [self.layer_losses(prediction, images) for prediction in self.layers(inputs)]
        for index, losses in enumerate(earlier):
            last |= {f"d{index}.{name}": value for name, value in losses.items()}
        return last

    def layer_losses(self, prediction: Prediction, images: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Match the queries of each image with its segments (classes, masks), then the three losses."""
        scores, masks = prediction
        matches = [
            self.sampler.sample(self.match(image_scores, image_masks, *image))
            for image_scores, image_masks, image in zip(scores, masks, images, strict=True)
        ]
        predicted = torch.cat([mask[queries] for mask, (queries, _) in zip(masks, matches, strict=True)])
        truth = torch.cat([image[1][chosen] for image, (_, chosen) in zip(images, matches, strict=True)])
        count = mean_over_processes(masks.new_tensor(float(len(predicted)))).clamp(min=1)
        classes = self.class_targets(scores, images, matches)
        losses = {"loss_cls": self.class_loss(scores, classes)}
        if len(predicted):
            losses["loss_mask"], losses["loss_dice"] = self.mask_losses(predicted, truth, count)
        else:
            losses["loss_mask"] = losses["loss_dice"] = no_loss(masks)
        return losses

    def match(self, scores: Tensor, masks: Tensor, classes: Tensor, truth: Tensor) -> Match:
        """The matching of one image: scores (Q, K + 1), masks (Q, h, w), classes (T,), truth (T, H, W)."""
        raise NotImplementedError

    def mask_losses(self, predicted: Tensor, truth: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """`loss_mask` and `loss_dice` of matched masks (M, h, w) and their truth (M, H, W)."""
        raise NotImplementedError

    def class_targets(self, scores: Tensor, images: list[tuple[Tensor, Tensor]], matches: Sequence[Match]) -> Tensor:
        """The class of each query (N, Q), "no object" for those without a segment."""
        classes = torch.full(scores.shape[:2], self.num_classes, dtype=torch.long, device=scores.device)
        for row, (present, _), (queries, chosen) in zip(classes, images, matches, strict=True):
            row[queries] = present[chosen].long()
        return classes

    def class_loss(self, scores: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of all queries, averaged by their class weights."""
        classes = classes.flatten()
        weights = scores.new_tensor(self.loss_cls.class_weight or [1.0] * (self.num_classes + 1))
        return self.loss_cls(scores.flatten(0, 1), classes, average=weights[classes].sum())
