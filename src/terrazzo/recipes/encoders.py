"""Models of any encoder and any head, each by one word."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UserError, nearest
from terrazzo.hub.encoders import Encoder, find_encoder, is_foreign
from terrazzo.recipes.backbones import backbone
from terrazzo.recipes.methods.masks import POINTS, mask_losses, matching
from terrazzo.recipes.parts import IMAGENET, Spec, adamw, batch_norm, cross_entropy, part

WIDTH = 256  # of heads and necks
UNET_WIDTH = 32  # of UNet's finest step
PYRAMID = (4, 8, 16, 32)  # strides of the maps that most heads read
# strides of the maps of backbones by their type, where they are others
STRIDES = {"VisionTransformer": (16,), "BEiT": (16,), "MAE": (16,), "UNet": (1, 2, 4, 8, 16)}
FROM_WEIGHTS, FROM_RANDOM = 1e-4, 5e-4  # learning rates


@dataclass(frozen=True)
class Maps:
    """The maps that a head reads, by their strides and indices, and the number of classes."""

    strides: tuple[int, ...]
    indices: list[int]
    num_classes: int

    def head(self, kind: str, in_index: Any, channels: int = WIDTH, **options: Any) -> Spec:
        """A head with the usual norm, loss and dropout."""
        return part(kind, in_channels="auto", in_index=in_index, channels=channels, dropout_ratio=0.1,
            num_classes=self.num_classes, norm_cfg=batch_norm(), align_corners=False,
            loss_decode=cross_entropy()) | options  # fmt: skip


def fcn(maps: Maps) -> Spec:
    """Long et al., CVPR 2015."""
    return {"decode_head": maps.head("FCNHead", maps.indices[-1])}


def psp(maps: Maps) -> Spec:
    """Zhao et al., CVPR 2017."""
    return {"decode_head": maps.head("PSPHead", maps.indices[-1])}


def aspp(maps: Maps) -> Spec:
    """DeepLabV3+ (Chen et al., ECCV 2018)."""
    fine: Spec = {"c1_in_channels": "auto", "c1_channels": 48, "dilations": [1, 6, 12, 18]}
    return {"decode_head": maps.head("DepthwiseSeparableASPPHead", maps.indices[-1], **fine)}


def fpn(maps: Maps) -> Spec:
    """Semantic FPN (Kirillov et al., CVPR 2019)."""
    count = len(maps.indices)
    neck = part("FPN", in_channels="auto", out_channels=WIDTH, num_outs=count, start_level=maps.indices[0])
    head = maps.head("FPNHead", [*range(count)], WIDTH // 2, feature_strides=[*maps.strides])
    return {"neck": neck, "decode_head": head}


def uper(maps: Maps) -> Spec:
    """Xiao et al., ECCV 2018."""
    return {"decode_head": maps.head("UPerHead", maps.indices, pool_scales=[1, 2, 3, 6])}


def segformer(maps: Maps) -> Spec:
    """Xie et al., NeurIPS 2021."""
    return {"decode_head": maps.head("SegformerHead", maps.indices)}


def unet(maps: Maps) -> Spec:
    """Ronneberger et al., MICCAI 2015."""
    return {"decode_head": maps.head("UNetHead", [*range(maps.indices[-1] + 1)], UNET_WIDTH)}


def linear(maps: Maps) -> Spec:
    """A linear classifier of the last map, as DINOv2's (Oquab et al., TMLR 2024)."""
    head = maps.head("LinearHead", maps.indices[-1])
    return {"decode_head": {key: value for key, value in head.items() if key not in ("channels", "norm_cfg")}}


HEADS: dict[str, Callable[[Maps], Spec]] = {
    "fcn": fcn, "psp": psp, "aspp": aspp, "fpn": fpn, "uper": uper, "segformer": segformer, "unet": unet,
    "linear": linear,
}  # fmt: skip
EOMT = "eomt"
WORDS = (*HEADS, EOMT)
PLAIN_WORDS = ("linear", "fcn", "psp")  # read the last map alone, at whatever stride


def encoder_of(choice: str | Mapping[str, Any]) -> Encoder:
    """The encoder of a word: of timm or transformers, of recipe names (r50, mit-b0, convnext-tiny), or a type.

    It may also be the section of a backbone. Raises UserError.
    """
    if isinstance(choice, str) and is_foreign(choice):
        return find_encoder(choice)
    mean, std = tuple(IMAGENET["mean"]), tuple(IMAGENET["std"])
    if isinstance(choice, Mapping) or choice[:1].isupper():
        spec = dict(choice) if isinstance(choice, Mapping) else {"type": choice}
        kind = str(spec.get("type"))
        return Encoder(kind, spec, STRIDES.get(kind, PYRAMID), mean, std)
    name = choice
    word = name.replace("resnet", "r")
    try:
        found = backbone(word)
    except UserError as problem:
        raise UserError(f"{problem}; or name one of timm/, of transformers/, or the type of a backbone") from None
    weights = found.model.get("pretrained") or (found.spec.get("init_cfg") or {}).get("checkpoint") or ""
    spec = {key: value for key, value in found.spec.items() if key not in ("init_cfg", "pretrained")}
    strides = (4, 8, 8, 8) if "-d8" in word else (4, 8, 16, 16) if "-d16" in word else PYRAMID
    return Encoder(name, spec, strides, mean, std, weights)


def compose(head: str, encoder: Encoder, num_classes: int) -> Spec:
    """The model of a head and an encoder. Raises UserError for an unknown head, or one that does not fit."""
    if head not in WORDS:
        raise UserError(f"no head is called '{head}'{nearest(head, WORDS)}; there are {', '.join(WORDS)}")
    model: Spec = part("EncoderDecoder", backbone=dict(encoder.backbone))
    if head == EOMT:
        model |= eomt(encoder, num_classes)
    elif encoder.is_plain and head not in PLAIN_WORDS:
        scales = [2.0 ** round(math.log2(encoder.strides[-1] / stride)) for stride in PYRAMID]
        pyramid = part("SimpleFeaturePyramid", in_channels="auto", out_channels=WIDTH, scales=scales)
        parts = HEADS[head](Maps(PYRAMID, [0, 1, 2, 3], num_classes))
        model |= parts | {"neck": pyramid}
    else:
        indices = [index for index, stride in enumerate(encoder.strides) if stride >= PYRAMID[0]][-4:]
        strides = tuple(encoder.strides[index] for index in indices)
        if not indices:
            raise UserError(f"{encoder.name} has no maps of a quarter of the image's size or less, which heads read")
        model |= HEADS[head](Maps(strides, indices, num_classes))
    if encoder.size is not None:
        stride = [2 * side // 3 for side in encoder.size]
        return model | {"test_cfg": {"mode": "slide", "crop_size": [*encoder.size], "stride": stride}}
    return model | {"test_cfg": {"mode": "whole"}}


def eomt(encoder: Encoder, num_classes: int) -> Spec:
    """Kerssies et al., CVPR 2025. Raises UserError for an encoder that is not a vision transformer as DINOv2's."""
    if encoder.sizes is None:
        raise UserError(
            f"head eomt puts queries into a vision transformer with a class token and learned positions, such as "
            f"timm/vit_small_patch14_dinov2 or transformers/dinov2-small, which {encoder.name} is not"
        )
    masks = {"type": "mmdet.CrossEntropyLoss", "use_sigmoid": True, "reduction": "mean", "loss_weight": 5.0}
    cost = {"type": "mmdet.CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True}
    losses = mask_losses(num_classes, 2.0, masks, 5.0)
    training = {**POINTS, **matching("mmdet.", 2.0, cost, 5.0)}
    return {
        "backbone": part("EoMT", num_classes=num_classes, **encoder.sizes, num_queries=100, num_blocks=4),
        "decode_head": part("EoMTHead", num_classes=num_classes, **losses, train_cfg=training),
    }


def optimizer(has_weights: bool) -> Spec:
    """AdamW, at the rate for published weights or for random ones."""
    return adamw(FROM_WEIGHTS if has_weights else FROM_RANDOM, 0.05)
