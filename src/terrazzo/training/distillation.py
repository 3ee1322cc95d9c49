"""Distillation: a run's model also learns from the predictions, and the features, of trained models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.config.teacher import TeacherSettings
from terrazzo.errors import UserError, some
from terrazzo.inference.checkpoints import load_torch
from terrazzo.models.heads.cascade import HeadCascade
from terrazzo.models.heads.mask_classification import MaskClassificationHead
from terrazzo.models.heads.side_adapter import SideAdapterCLIPHead
from terrazzo.models.layers import resize
from terrazzo.models.preprocess import Preprocess
from terrazzo.models.probabilities import probabilities
from terrazzo.models.protocols import Segmentor
from terrazzo.sample import Batch

SUMS_OF_MASKS = (MaskClassificationHead, SideAdapterCLIPHead)  # not logits, but shares of each class, come out of these


class Teacher:
    """A trained model that sees the crops of a run's model; its classes are those of the run, or more, by name."""

    def __init__(self, file: str, classes: Sequence[str], bands: int, device: torch.device, features: bool) -> None:
        self.file = file
        loaded: Any = load_torch(file, device=device).runtime
        missing = [name for name in classes if name not in loaded.classes]
        if missing:
            raise UserError(
                f"teacher {file} does not know the class {some(missing)}; its classes are {', '.join(loaded.classes)}"
            )
        if loaded.bands != bands:
            raise UserError(f"teacher {file} is for images of {loaded.bands} channels, and these have {bands}")
        self.model: Any = loaded.model.requires_grad_(False)
        self.order = [loaded.classes.index(name) for name in classes]
        self.features: list[Tensor] = []
        if features:
            backbone_of(self.model).register_forward_hook(self.note_features)

    def note_features(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Keep the backbone's maps of the last pass."""
        self.features = feature_maps(outputs)

    @torch.no_grad()
    def logits(self, batch: Batch, size: Sequence[int]) -> Tensor:
        """Logits (N, K, h, w) of the run's classes for raw images, padded up to `size`."""
        preprocess: Preprocess = self.model.preprocess
        images = preprocess(batch.image)
        margin = (0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2])
        logits = precise(self.model.decode(F.pad(images, margin)))
        if isinstance(self.model.final_head, SUMS_OF_MASKS):
            logits = logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
        return class_logits(logits)[:, self.order]


class Distillation:
    """The losses of a run's model towards its teachers, on images with and without labels.

    Logits: KL divergence from the teachers' mean probabilities, at a temperature (Hinton et al., 2015). Features:
    distance of the maps of attention, the mean square over channels (Zagoruyko and Komodakis, ICLR 2017), at
    each level of the backbones from the last one on. What the model computes in a training step is noted by hooks.
    """

    def __init__(
        self, settings: TeacherSettings, student: Segmentor, classes: Sequence[str], bands: int, device: torch.device
    ) -> None:
        if student.target != "label":
            raise UserError(f"teacher: it teaches classes, and {type(student).__name__} learns {student.target}")
        self.settings, by_features = settings, settings.features > 0
        self.teachers = [Teacher(file, classes, bands, device, by_features) for file in settings.weights]
        head: Any = student.final_head
        self.head = head.later[-1] if isinstance(head, HeadCascade) else head
        self.student_logits: Tensor | None = None
        self.student_features: list[Tensor] = []
        for module in (getattr(self.head, "conv_seg", None), self.head):  # a head that is called comes last
            if isinstance(module, nn.Module):
                module.register_forward_hook(self.note_logits)
        if by_features:
            backbone_of(student).register_forward_hook(self.note_features)

    def __str__(self) -> str:
        names = [f"{type(teacher.model).__name__} of {teacher.file}" for teacher in self.teachers]
        return f"teacher: {', '.join(names)}"

    def note_logits(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the logits of the model in training."""
        if module.training and isinstance(output, Tensor) and output.ndim == 4:
            self.student_logits = output

    def note_features(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Keep the backbone's maps of the model in training."""
        if module.training:
            self.student_features = feature_maps(outputs)

    def losses(self, batch: Batch, size: Sequence[int]) -> dict[str, Tensor]:
        """The losses by name for the batch, padded to `size`, that the model has just seen.

        Raises UserError for a model without logits, or backbones without maps, to compare.
        """
        logits, self.student_logits = self.student_logits, None  # else it would keep the step's memory
        features, self.student_features = self.student_features, []
        if logits is None:
            raise UserError(
                f"teacher: {type(self.head).__name__} computes no logits of whole crops in training, which could be "
                "compared with a teacher's; take a model whose head classifies pixels"
            )
        targets = [teacher.logits(batch, size) for teacher in self.teachers]
        losses = {}
        if self.settings.loss_weight:
            seen = inside(batch, size, logits)
            losses["distil.loss_logits"] = self.settings.loss_weight * self.divergence(logits, targets, seen)
        if self.settings.features:
            distances = [distance(features, teacher.features) for teacher in self.teachers]
            losses["distil.loss_features"] = self.settings.features * torch.stack(distances).mean()
        return losses

    def divergence(self, logits: Tensor, targets: Sequence[Tensor], seen: Tensor) -> Tensor:
        """The mean over the pixels `seen` (N, 1, h, w) of the divergence of logits from the targets' mean."""
        heat = self.settings.temperature
        softened = [probabilities(resize(target, like=logits) / heat) for target in targets]
        student = (precise(class_logits(logits)) / heat).log_softmax(1)
        values = F.kl_div(student, torch.stack(softened).mean(0), reduction="none") * heat**2  # N, K, h, w
        return (values * seen).sum() / seen.sum().clamp(min=1)


def precise(values: Tensor) -> Tensor:
    """Values in float32 at least, whatever the precision of the model."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def class_logits(logits: Tensor) -> Tensor:
    """Logits (N, K, h, w) with one channel for each class: a single one is that of the foreground, against 0."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def inside(batch: Batch, size: Sequence[int], like: Tensor) -> Tensor:
    """1 where a batch padded to `size` shows its images, 0 in their margins, at the resolution of `like`."""
    mask = like.new_zeros((len(batch.sizes), 1, *size))
    for one, (height, width) in zip(mask, batch.sizes, strict=True):
        one[:, :height, :width] = 1
    return F.interpolate(mask, like.shape[-2:], mode="nearest")


def backbone_of(model: Any) -> nn.Module:
    """The backbone of a model. Raises UserError for one without."""
    if not isinstance(backbone := getattr(model, "backbone", None), nn.Module):
        raise UserError(f"teacher.features: {type(model).__name__} has no backbone to compare; leave `features` out")
    return backbone


def feature_maps(outputs: Any) -> list[Tensor]:
    """The maps (N, C, h, w) among what a backbone returns."""
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [one for one in outputs if isinstance(one, Tensor) and one.ndim == 4]


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The mean distance of maps of attention, level by level from the last one on. Raises UserError without maps."""
    pairs = [*zip(reversed(student), reversed(teacher), strict=False)]
    if not pairs:
        raise UserError("teacher.features: a backbone returns no maps to compare; leave `features` out")
    return torch.stack(
        [
            (attention(own, own) - attention(theirs, own)).square().sum(1).mean()  # of the images
            for own, theirs in pairs
        ]
    ).mean()


def attention(features: Tensor, like: Tensor) -> Tensor:
    """The attention map of features (N, C, h, w), at the size of `like`: a unit vector (N, pixels) for each image."""
    energy = precise(features).square().mean(1, keepdim=True)
    return F.normalize(resize(energy, like=like).flatten(1))
