"""Backbone, neck and a depth head: images (N, C, H, W), normalised -> depth (N, 1, H, W)."""

from __future__ import annotations

from torch import Tensor

from terrazzo.errors import UserError
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder
from terrazzo.registry import MODELS


@MODELS.register
class DepthEstimator(EncoderDecoder):
    """Backbone, neck and a depth head: images (N, C, H, W), normalised -> depth (N, 1, H, W).

    It is trained on `depth` (N, H, W), zero where nothing was measured. Raises UserError where that target is missing.
    """

    target = "depth"

    def loss(self, images: Tensor, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        if "depth" not in targets:
            raise UserError("DepthEstimator is trained on depth: load it with LoadDepthAnnotation in the pipeline")
        return super().loss(images, labels, **targets)
