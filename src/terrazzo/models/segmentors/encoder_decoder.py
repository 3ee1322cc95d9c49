"""Backbone, neck, decode head, auxiliary heads; also for depth and for cascades of heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from terrazzo.models.checks import checked_test_cfg
from terrazzo.models.freezing import Freezable
from terrazzo.models.heads.base import DecodeHead, Head
from terrazzo.models.layers import Spec, resize
from terrazzo.models.layers.tokens import lay_for_inference
from terrazzo.models.losses.base import NO_LABEL
from terrazzo.models.preprocess import Preprocess
from terrazzo.registry import MODELS


@MODELS.register
class EncoderDecoder(Freezable):
    """The usual segmentor: images (N, C, H, W), normalised -> logits (N, K, H, W).

    Auxiliary heads add losses in training and are never run otherwise. `preprocess` normalises raw batches; `test_cfg`
    is what `terrazzo.inference` reads (`mode`, `crop_size`, `stride`).
    """

    target = "label"  # of training and evaluation
    decode_head: Head

    def __init__(
        self,
        *,
        backbone: nn.Module,
        decode_head: Head,
        neck: nn.Module | None = None,
        auxiliary_head: DecodeHead | Sequence[DecodeHead] | None = None,
        data_preprocessor: Preprocess | None = None,
        test_cfg: Spec | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        if neck is not None:
            self.neck = neck
        self.decode_head = decode_head
        if isinstance(auxiliary_head, Sequence):
            self.auxiliary_head: nn.Module = nn.ModuleList(auxiliary_head)
        elif auxiliary_head is not None:
            self.auxiliary_head = auxiliary_head
        self.preprocess = data_preprocessor if data_preprocessor is not None else Preprocess()
        self.test_cfg = checked_test_cfg(test_cfg)

    @property
    def final_head(self) -> Head:
        """The head whose logits are the model's."""
        return self.decode_head

    @property
    def auxiliary_heads(self) -> dict[str, DecodeHead]:
        """Each auxiliary head under the prefix of its losses."""
        head = getattr(self, "auxiliary_head", None)
        if isinstance(head, nn.ModuleList):
            return {f"aux_{index}": cast("DecodeHead", item) for index, item in enumerate(head)}
        return {} if head is None else {"aux": head}

    def encode(self, images: Tensor) -> Any:
        """The features that the heads read."""
        if not self.training and not torch.compiler.is_compiling():
            images = lay_for_inference(images)
        features = self.backbone(images)
        return self.neck(features) if hasattr(self, "neck") else features

    def decode(self, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) at the head's own resolution."""
        return self.decode_head.predict(self.encode(images), images.shape[-2:])

    def forward(self, images: Tensor) -> Tensor:
        return resize(self.decode(images), images.shape[-2:], align_corners=self.final_head.align_corners)

    def loss(self, images: Tensor, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of all heads by published name; labels (N, H, W) int64, further targets by keyword."""
        features = self.encode(images)
        losses = self.decode_losses(features, own_labels(self.decode_head, labels), **targets)
        for prefix, head in self.auxiliary_heads.items():
            losses |= with_prefix(prefix, head.loss(features, own_labels(head, labels), **targets))
        return losses

    def decode_losses(self, features: Any, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """Losses of the decode head."""
        return with_prefix("decode", self.decode_head.loss(features, labels, **targets))


def own_labels(head: Head, labels: Tensor) -> Tensor:
    """Labels in which pixels that never count have the value that the head ignores."""
    return labels if head.ignore_index == NO_LABEL else labels.masked_fill(labels == NO_LABEL, head.ignore_index)


def with_prefix(prefix: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """`{"loss_ce": ...}` -> `{"decode.loss_ce": ...}`."""
    return {f"{prefix}.{name}": value for name, value in losses.items()}
