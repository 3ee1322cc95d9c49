"""The layers that several architectures share."""

from terrazzo.models.layers.activation import build_activation
from terrazzo.models.layers.checkpointing import maybe_checkpoint
from terrazzo.models.layers.conv import ConvBlock, DepthwiseSeparableConvBlock, build_conv
from terrazzo.models.layers.drop import DropPath
from terrazzo.models.layers.norm import build_norm, norm_name
from terrazzo.models.layers.resize import Upsample, resize

__all__ = [
    "ConvBlock",
    "DepthwiseSeparableConvBlock",
    "DropPath",
    "Upsample",
    "build_activation",
    "build_conv",
    "build_norm",
    "maybe_checkpoint",
    "norm_name",
    "resize",
]
