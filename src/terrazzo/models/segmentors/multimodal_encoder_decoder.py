"""An image encoder, a text encoder, and a head that reads both."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.backbones.clip_text import CLIPTextEncoder
from terrazzo.models.backbones.vit import VisionTransformer
from terrazzo.models.heads.base import Head
from terrazzo.models.layers import Spec, resize
from terrazzo.models.naming import Naming
from terrazzo.models.preprocess import Preprocess
from terrazzo.models.segmentors.clip_weights import clip_namings
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder
from terrazzo.registry import MODELS


@MODELS.register
class MultimodalEncoderDecoder(EncoderDecoder):
    """Open-vocabulary segmentation (SAN, Xu et al., CVPR 2023): images (N, C, H, W), normalised -> logits (N, K, H, W).

    The head gets the images, the image encoder's maps and the classes' embeddings; with `asymetric_input` the image
    encoder sees the images at `encoder_resolution` times their size. Raises UserError where the head has another number
    of classes than the text encoder.
    """

    def __init__(
        self,
        *,
        image_encoder: VisionTransformer,
        text_encoder: CLIPTextEncoder,
        decode_head: Head,
        asymetric_input: bool = True,
        encoder_resolution: float | None = None,
        data_preprocessor: Preprocess | None = None,
        train_cfg: Spec | None = None,
        test_cfg: Spec | None = None,
    ) -> None:
        nn.Module.__init__(self)  # its parts have other names than a backbone's
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.decode_head = decode_head
        self.scale = encoder_resolution if asymetric_input and encoder_resolution is not None else 1.0
        self.preprocess = data_preprocessor if data_preprocessor is not None else Preprocess()
        self.test_cfg = test_cfg or {"mode": "whole"}

    @property
    def namings(self) -> tuple[Naming, ...]:
        return clip_namings(len(self.image_encoder.layers))

    def encode(self, images: Tensor) -> Any:
        small = images if self.scale == 1.0 else resize(images, scale_factor=self.scale)
        classes = self.text_encoder()  # K + 1, D
        if len(classes) != self.decode_head.num_classes + 1:
            raise UserError(
                f"the text encoder has {len(classes) - 1} classes, but model.decode_head.num_classes is "
                f"{self.decode_head.num_classes}; make them equal, or name the classes in model.text_encoder.vocabulary"
            )
        return images, self.image_encoder(small), classes
