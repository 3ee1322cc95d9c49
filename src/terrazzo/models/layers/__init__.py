"""The layers that several architectures share."""

from terrazzo.models.layers.activation import build_activation
from terrazzo.models.layers.conv import ConvBlock, DepthwiseSeparableConvBlock, build_conv
from terrazzo.models.layers.init import init_transformer
from terrazzo.models.layers.norm import build_norm, norm_name
from terrazzo.models.layers.resize import Upsample, resize
from terrazzo.models.layers.spec import Spec
from terrazzo.models.layers.tokens import PatchEmbed, resize_learned, resize_position_embedding, to_map
from terrazzo.models.layers.training import DropPath, drop_path_rates, maybe_checkpoint
from terrazzo.models.layers.transformer import FeedForward, MultiheadAttention, TransformerEncoderLayer

__all__ = [
    "ConvBlock",
    "DepthwiseSeparableConvBlock",
    "DropPath",
    "FeedForward",
    "MultiheadAttention",
    "PatchEmbed",
    "Spec",
    "TransformerEncoderLayer",
    "Upsample",
    "build_activation",
    "build_conv",
    "build_norm",
    "drop_path_rates",
    "init_transformer",
    "maybe_checkpoint",
    "norm_name",
    "resize",
    "resize_learned",
    "resize_position_embedding",
    "to_map",
]
