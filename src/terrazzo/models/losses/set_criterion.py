"""Training a set of queries: match them with an image's segments, then compare classes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers import Spec
from terrazzo.models.layers.points import draw_points, sample_points
from terrazzo.models.layers.resize import resize
from terrazzo.models.losses.mask_set import SetLoss, mean_over_processes, no_loss
from terrazzo.models.losses.matching import HungarianAssigner, MaskPseudoSampler, Match, segments
from terrazzo.registry import MODELS

Prediction = tuple[Tensor, Tensor]  # class scores (N, Q, K + 1) and masks (N, Q, h, w), both logits
Segments = tuple[Tensor, Tensor]  # the classes (T,) in one image and their masks (T, H, W)


class SetCriterion(nn.Module):
    """The three losses of MaskFormer (Cheng et al., NeurIPS 2021), on whole masks; the last class is "no object".

    `names` are the keys of the class, mask and dice loss.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        loss_cls: SetLoss,
        loss_mask: SetLoss,
        loss_dice: SetLoss,
        assigner: HungarianAssigner,
        sampler: MaskPseudoSampler,
        ignore_index: int = 255,
        names: Sequence[str] = ("loss_cls", "loss_mask", "loss_dice"),
    ) -> None:
        super().__init__()
        self.num_classes, self.ignore_index, self.names = num_classes, ignore_index, names
        self.loss_cls, self.loss_mask, self.loss_dice = loss_cls, loss_mask, loss_dice
        self.assigner, self.sampler = assigner, sampler

    @property
    def class_weight(self) -> Sequence[float] | None:
        return getattr(self.loss_cls, "class_weight", None)

    def forward(self, predictions: Sequence[Prediction], labels: Tensor) -> list[dict[str, Tensor]]:
        """The losses of each prediction; labels (N, H, W). Raises UserError for class weights of another number."""
        weights = self.class_weight
        if weights is not None and len(weights) != self.num_classes + 1:
            raise UserError(
                f"class_weight of the class loss has {len(weights)} values for {self.num_classes} classes and "
                f"'no object'; give {self.num_classes + 1}"
            )
        images = [segments(label, self.ignore_index) for label in labels]
        return [self.compare(scores, masks, images) for scores, masks in predictions]

    def layer_losses(
        self, predictions: Sequence[Prediction], labels: Tensor, numbers: Sequence[int]
    ) -> dict[str, Tensor]:
        """The losses of all layers by name, those of all but the last as "d7.loss_cls", by the layers' `numbers`."""
        *earlier, last = self(predictions, labels)
        for number, losses in zip(numbers, earlier, strict=True):
            last |= {f"d{number}.{name}": value for name, value in losses.items()}
        return last

    def compare(self, scores: Tensor, masks: Tensor, images: Sequence[Segments]) -> dict[str, Tensor]:
        """The losses of one prediction."""
        matches = [
            self.sampler.sample(self.match(image_scores, image_masks, *image))
            for image_scores, image_masks, image in zip(scores, masks, images, strict=True)
        ]
        predicted = torch.cat([mask[queries] for mask, (queries, _) in zip(masks, matches, strict=True)])
        truth = torch.cat([image[1][chosen] for image, (_, chosen) in zip(images, matches, strict=True)])
        count = mean_over_processes(masks.new_tensor(float(len(predicted)))).clamp(min=1)
        class_loss = self.class_loss(scores, self.class_targets(scores, images, matches))
        if len(predicted):
            mask_loss, dice_loss = self.mask_losses(predicted, truth, count)
        else:
            mask_loss = dice_loss = no_loss(masks)
        return dict(zip(self.names, (class_loss, mask_loss, dice_loss), strict=True))

    def match(self, scores: Tensor, masks: Tensor, classes: Tensor, truth: Tensor) -> Match:
        """The matching of one image: scores (Q, K + 1), masks (Q, h, w), classes (T,), truth (T, H, W)."""
        small = resize(truth.unsqueeze(1), like=masks.unsqueeze(1), mode="nearest").squeeze(1)
        return self.assigner.assign(scores, masks.flatten(1), classes, small.flatten(1))

    def mask_losses(self, predicted: Tensor, truth: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and dice loss of matched masks (M, h, w) and their truth (M, H, W), averaged over `count` masks."""
        predicted = resize(predicted.unsqueeze(1), truth.shape[-2:]).squeeze(1)  # M, H, W
        loss_mask = self.loss_mask(predicted, truth, average=count * truth[0].numel())
        return loss_mask, self.loss_dice(predicted, truth, average=count)

    def class_targets(self, scores: Tensor, images: Sequence[Segments], matches: Sequence[Match]) -> Tensor:
        """The class of each query (N, Q), "no object" for those without a segment."""
        classes = torch.full(scores.shape[:2], self.num_classes, dtype=torch.long, device=scores.device)
        for row, (present, _), (queries, chosen) in zip(classes, images, matches, strict=True):
            row[queries] = present[chosen].long()
        return classes

    def class_loss(self, scores: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of all queries, averaged by their class weights."""
        classes = classes.flatten()
        weights = scores.new_tensor(self.class_weight or [1.0] * (self.num_classes + 1))
        return self.loss_cls(scores.flatten(0, 1), classes, average=weights[classes].sum())


class PointSetCriterion(SetCriterion):
    """The same at points (Mask2Former, Cheng et al., CVPR 2022): matched at random ones, trained at uncertain ones."""

    def __init__(
        self,
        *,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_points = num_points
        self.oversample_ratio, self.importance_sample_ratio = oversample_ratio, importance_sample_ratio

    def match(self, scores: Tensor, masks: Tensor, classes: Tensor, truth: Tensor) -> Match:
        points = torch.rand(1, self.num_points, 2, device=masks.device)
        sampled = sample_points(masks.detach().float().unsqueeze(0), points).squeeze(0)  # Q, P
        targets = sample_points(truth.unsqueeze(0), points).squeeze(0)  # T, P
        return self.assigner.assign(scores, sampled, classes, targets)

    def mask_losses(self, predicted: Tensor, truth: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        predicted = predicted.unsqueeze(1)  # M, 1, H, W
        points = draw_points(predicted, self.num_points, self.oversample_ratio, self.importance_sample_ratio)
        targets = sample_points(truth.unsqueeze(1), points).squeeze(1)  # M, P
        sampled = sample_points(predicted, points.to(predicted.dtype)).squeeze(1)
        loss_dice = self.loss_dice(sampled, targets, average=count)
        return self.loss_mask(sampled, targets, average=count * self.num_points), loss_dice


def build_criterion(criterion: type[SetCriterion], train_cfg: Spec, **options: Any) -> SetCriterion | None:
    """Build the criterion whose `train_cfg` names the assigner; None without one, for a model that is not trained."""
    if "assigner" not in train_cfg:
        return None
    extra = {key: value for key, value in train_cfg.items() if key not in ("assigner", "sampler")}
    assigner = MODELS.build(train_cfg["assigner"], "train_cfg.assigner")
    sampler = MODELS.build(train_cfg.get("sampler", {"type": "MaskPseudoSampler"}), "train_cfg.sampler")
    return criterion(assigner=assigner, sampler=sampler, **extra, **options)


def semantic_logits(prediction: Prediction, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Logits (N, K, H, W) for an image of `size`: masks are resized first, then weighed by their classes."""
    scores, masks = prediction
    masks = resize(masks, size, align_corners=align_corners).sigmoid()
    classes = scores.softmax(-1)[..., :-1]  # N, Q, K
    return (classes.transpose(1, 2) @ masks.flatten(2)).unflatten(2, tuple(size))
