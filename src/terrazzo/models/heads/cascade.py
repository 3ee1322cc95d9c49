"""Cascades: heads that refine the logits of the head before them, such as OCRNet's and PointRend's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features, LogitsHead
from terrazzo.models.layers import Spec


class CascadeHead(LogitsHead):
    """A later head of a cascade: it reads the backbone's maps and the logits (N, K, h, w) of the head before it."""

    def configure(self, train_cfg: Spec, test_cfg: Spec) -> None:
        """Take the settings that the model's `train_cfg` and `test_cfg` hold for this head."""

    def features(self, inputs: Features, previous: Tensor) -> Tensor:
        """The map (N, channels, h, w) that the classifier reads."""
        raise NotImplementedError

    def forward(self, inputs: Features, previous: Tensor) -> Tensor:
        return self.classify(self.features(inputs, previous))

    def loss(self, inputs: Features, labels: Tensor, *, previous: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses by name; labels (N, H, W)."""
        return self.losses(self(inputs, previous), labels)


class HeadCascade(nn.ModuleList):
    """A first head and later ones as one: its logits are the last head's, its losses "0.loss_ce", "1.loss_ce", ..."""

    def __init__(self, heads: Sequence[DecodeHead | CascadeHead]) -> None:
        super().__init__(heads)
        last = heads[-1]
        self.num_classes, self.out_channels, self.threshold = last.num_classes, last.out_channels, last.threshold
        self.align_corners, self.ignore_index = last.align_corners, last.ignore_index

    @property
    def first(self) -> DecodeHead:
        return cast("DecodeHead", self[0])

    @property
    def later(self) -> list[CascadeHead]:
        return cast("list[CascadeHead]", [*self][1:])

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Logits (N, K, h, w) of the last head."""
        logits = self.first(inputs)
        for head in self.later:
            logits = head(inputs, logits)
        return logits

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of all heads; labels (N, H, W)."""
        *between, last = self.later
        logits = self.first(inputs)
        losses = [self.first.losses(logits, labels)]
        for head in between:
            logits = head(inputs, logits)
            losses.append(head.losses(logits, labels))
        losses.append(last.loss(inputs, labels, previous=logits, **targets))
        return {f"{index}.{name}": value for index, own in enumerate(losses) for name, value in own.items()}
