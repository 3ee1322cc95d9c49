"""Base classes of decode heads: selection of features, the classifier, the losses."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from terrazzo.errors import UserError
from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.layers.init import init_normal
from terrazzo.models.losses.base import SegmentationLoss, accuracy
from terrazzo.models.losses.cross_entropy import CrossEntropyLoss
from terrazzo.models.losses.ohem import OHEMPixelSampler

Features = Sequence[Tensor]  # the backbone's or neck's maps, each N, C, H, W, from fine to coarse


class Head(Protocol):
    """The contract between a segmentor and its head."""

    num_classes: int
    out_channels: int
    threshold: float | None  # of a single foreground score
    align_corners: bool
    ignore_index: int

    def predict(self, inputs: Any, size: Sequence[int]) -> Tensor:
        """Logits (N, out_channels, h, w) for an image of `size` (height, width), at any resolution."""

    def loss(self, inputs: Any, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses by name; labels (N, H, W), further targets by keyword."""


class LogitsHead(nn.Module):
    """The common parts of all heads that give one map of logits.

    `in_index` chooses the input maps: one, several as a list (`input_transform="multiple_select"`), or several resized
    to the first and concatenated ("resize_concat"). With `out_channels=1` two classes share one foreground score.
    Raises UserError where `in_index` and `input_transform` do not fit.
    """

    def __init__(
        self,
        *,
        in_channels: int | Sequence[int],
        channels: int,
        num_classes: int,
        out_channels: int | None = None,
        threshold: float | None = None,
        dropout_ratio: float = 0.1,
        conv_cfg: Spec | None = None,
        norm_cfg: Spec | None = None,
        act_cfg: Spec | None = {"type": "ReLU"},  # noqa: B006 - never written to
        in_index: int | Sequence[int] = -1,
        input_transform: str | None = None,
        loss_decode: nn.Module | Sequence[nn.Module] | None = None,
        ignore_index: int = 255,
        sampler: OHEMPixelSampler | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(in_index, int) != (input_transform is None):
            raise UserError(
                f"{type(self).__name__}: in_index={in_index} does not fit input_transform={input_transform!r}: give "
                "one number without a transform, or a list with 'multiple_select' or 'resize_concat'"
            )
        self.in_index = in_index
        self.input_transform = input_transform
        if input_transform == "resize_concat":
            assert isinstance(in_channels, Sequence)
            in_channels = sum(in_channels)
        self.in_channels: Any = in_channels  # a list for "multiple_select"
        self.channels = channels
        self.num_classes = num_classes
        self.out_channels, self.threshold = binary_outputs(num_classes, out_channels, threshold)
        self.conv_cfg, self.norm_cfg, self.act_cfg = conv_cfg, norm_cfg, act_cfg
        self.ignore_index = ignore_index
        self.align_corners = align_corners
        self.sampler = sampler
        if loss_decode is None:
            loss_decode = CrossEntropyLoss(use_sigmoid=self.out_channels == 1)
        self.loss_decode = nn.ModuleList(loss_decode) if isinstance(loss_decode, Sequence) else loss_decode
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1)
        init_normal(self.conv_seg, std=0.01)
        self.dropout: _DropoutNd | None = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else None

    @property
    def criteria(self) -> list[SegmentationLoss]:
        """The losses of `loss_decode`."""
        losses = [*self.loss_decode] if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]
        return cast("list[SegmentationLoss]", losses)

    def conv_block(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> ConvBlock:
        """A ConvBlock with the head's convolution, norm and activation."""
        options = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg} | options
        return ConvBlock(in_channels, out_channels, kernel_size, **options)

    def resize(self, x: Tensor, *, like: Tensor) -> Tensor:
        """Resize `x` to the size of `like`, with the head's `align_corners`."""
        return resize(x, like=like, align_corners=self.align_corners)

    def select(self, inputs: Features) -> Any:
        """Return the input map (N, C, H, W), or a list of them for "multiple_select"."""
        if isinstance(self.in_index, int):
            return input_maps(inputs, [self.in_index], self)[0]
        chosen = input_maps(inputs, self.in_index, self)
        if self.input_transform == "resize_concat":
            return torch.cat([self.resize(x, like=chosen[0]) for x in chosen], dim=1)
        return chosen

    def classify(self, features: Tensor) -> Tensor:
        """Logits (N, out_channels, h, w)."""
        if self.dropout is not None:
            features = self.dropout(features)
        return self.conv_seg(features)

    def losses(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the losses of logits of any size and the pixel accuracy "acc_seg"; labels (N, H, W)."""
        # every loss would convert 16 bits, and copy channels that lie side by side, at the labels' size
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
        logits = resize(logits, labels.shape[-2:], align_corners=self.align_corners)
        weight = None
        if self.sampler is not None:
            weight = self.sampler.sample(logits, labels, lambda: self.loss_map(logits, labels), self.ignore_index)
        losses = self.named_losses(logits, labels, weight)
        losses["acc_seg"] = accuracy(logits, labels, self.ignore_index, self.threshold or 0.5)
        return losses

    def named_losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Compute each of the head's losses; losses of the same name add up."""
        losses: dict[str, Tensor] = {}
        for criterion in self.criteria:
            value = criterion(logits, labels, weight=weight, ignore_index=self.ignore_index)
            name = getattr(criterion, "loss_name", "loss_seg")
            losses[name] = losses[name] + value if name in losses else value
        return losses

    def loss_map(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each pixel (N, H, W), by which a sampler finds the hard ones."""
        maps = [criterion.pixel_losses(logits, labels, self.ignore_index) for criterion in self.criteria]
        return torch.stack(maps).sum(0)


class DecodeHead(LogitsHead):
    """features -> logits -> loss; a subclass writes `features` and its own modules."""

    def features(self, inputs: Features) -> Tensor:
        """The map (N, channels, h, w) that the classifier reads."""
        raise NotImplementedError

    def forward(self, inputs: Features) -> Tensor:
        return self.classify(self.features(inputs))

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, out_channels, h, w) for an image of `size` (height, width), at any resolution."""
        return self(inputs)

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses by name, and the pixel accuracy "acc_seg"; labels (N, H, W)."""
        return self.losses(self(inputs), labels)


def input_maps(inputs: Features, in_index: Iterable[int], head: nn.Module) -> list[Tensor]:
    """The input maps of `in_index`. Raises UserError for an index that there is no map for."""
    for index in in_index:
        if not -len(inputs) <= index < len(inputs):
            raise UserError(f"{type(head).__name__}: in_index={index}, but the head is given {len(inputs)} input maps")
    return [inputs[index] for index in in_index]


def binary_outputs(num_classes: int, out_channels: int | None, threshold: float | None) -> tuple[int, float | None]:
    """Return the output channels and threshold of a head. Raises UserError where they do not fit `num_classes`."""
    if out_channels is None:
        if num_classes == 2:
            warnings.warn(
                "two classes with two output channels (softmax); a binary head can also have num_classes=2, "
                "out_channels=1 with a sigmoid loss (use_sigmoid=True) and a threshold"
            )
        out_channels = num_classes
    if out_channels != num_classes and not (out_channels == 1 and num_classes == 2):
        raise UserError(
            f"out_channels={out_channels} does not fit num_classes={num_classes}: "
            "it is num_classes, or 1 for two classes (sigmoid)"
        )
    if out_channels == 1 and threshold is None:
        threshold = 0.3
        warnings.warn("out_channels=1 without a threshold: a pixel above 0.3 is foreground; set threshold to change it")
    return out_channels, threshold
