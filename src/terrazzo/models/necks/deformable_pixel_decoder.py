"""Pixel decoder (Cheng et al., CVPR 2022): deformable attention among the coarser maps, a pyramid for the finer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.layers.deformable_attention import DeformableEncoder
from terrazzo.models.layers.init import zero_bias
from terrazzo.models.layers.query_decoder import from_config
from terrazzo.models.layers.tokens import SinePositions
from terrazzo.registry import MODELS


@MODELS.register
class MSDeformAttnPixelDecoder(nn.Module):
    """Pixel decoder (Cheng et al., CVPR 2022): deformable attention among the coarser maps, a pyramid for the finer.

    The maps of a backbone (fine to coarse) -> mask features (N, out_channels, h, w) at the first one's size, and
    `num_outs` maps (N, feat_channels, *, *) from coarse to fine.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        feat_channels: int,
        out_channels: int,
        encoder: Spec,
        positional_encoding: Spec,
        num_outs: int = 3,
        norm_cfg: Spec = {"type": "GN", "num_groups": 32},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        self.num_outs = num_outs
        encoder_layers = from_config(DeformableEncoder, encoder, "encoder")
        levels = encoder_layers.num_levels
        finer, coarser = in_channels[:-levels], in_channels[-levels:]
        input_convs = [
            ConvBlock(channels, feat_channels, 1, bias=True, norm_cfg=norm_cfg, act_cfg=None)
            for channels in reversed(coarser)
        ]
        self.input_convs = nn.ModuleList(input_convs)
        self.encoder = encoder_layers
        self.positional_encoding = from_config(SinePositions, positional_encoding, "positional_encoding")
        self.level_encoding = nn.Embedding(levels, feat_channels)
        self.lateral_convs = nn.ModuleList(
            ConvBlock(channels, feat_channels, 1, norm_cfg=norm_cfg, act_cfg=None) for channels in finer
        )
        self.output_convs = nn.ModuleList(
            ConvBlock(feat_channels, feat_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg) for _ in finer
        )
        self.mask_feature = nn.Conv2d(feat_channels, out_channels, 1)
        for block in input_convs:
            nn.init.xavier_uniform_(block.conv.weight)
        nn.init.kaiming_uniform_(self.mask_feature.weight, a=1)
        zero_bias(self.mask_feature.bias)

    def encode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Apply attention among all pixels of the maps, which are ordered from coarse to fine."""
        maps = [conv(x) for conv, x in zip(self.input_convs, maps, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        positions = [self.positional_encoding(x) + self.level_encoding.weight[level] for level, x in enumerate(maps)]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)  # N, S, C
        tokens = self.encoder(tokens, torch.cat(positions, dim=1), sizes)
        levels = tokens.split([height * width for height, width in sizes], dim=1)
        return [level.transpose(1, 2).unflatten(2, size) for level, size in zip(levels, sizes, strict=True)]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        count = len(self.lateral_convs)
        outputs = self.encode(list(reversed(inputs[count:])))
        for index in range(count - 1, -1, -1):
            lateral = self.lateral_convs[index](inputs[index])
            outputs.append(self.output_convs[index](lateral + resize(outputs[-1], like=lateral)))
        return self.mask_feature(outputs[-1]), outputs[: self.num_outs]
