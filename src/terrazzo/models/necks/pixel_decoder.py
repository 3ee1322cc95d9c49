"""The pixel decoders of MaskFormer and Mask2Former."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terrazzo.models.layers import ConvBlock, Spec, resize
from terrazzo.models.layers.init import zero_bias
from terrazzo.registry import MODELS


@MODELS.register
class PixelDecoder(nn.Module):
    """Pixel decoder (Cheng et al., NeurIPS 2021): a feature pyramid with nearest upsampling, from coarse to fine.

    The maps of a backbone (fine to coarse) -> mask features (N, out_channels, h, w) at the first one's size, and the
    last map unchanged, which the queries read.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        feat_channels: int,
        out_channels: int,
        norm_cfg: Spec = {"type": "GN", "num_groups": 32},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU"},  # noqa: B006 - never written to
    ) -> None:
        super().__init__()
        *finer, last = in_channels
        self.lateral_convs = nn.ModuleList(
            ConvBlock(channels, feat_channels, 1, norm_cfg=norm_cfg, act_cfg=None) for channels in finer
        )
        self.output_convs = nn.ModuleList(
            ConvBlock(feat_channels, feat_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg) for _ in finer
        )
        self.last_feat_conv = ConvBlock(last, feat_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.mask_feature = nn.Conv2d(feat_channels, out_channels, 3, padding=1)
        nn.init.kaiming_uniform_(self.mask_feature.weight, a=1)
        zero_bias(self.mask_feature.bias)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *finer, last = inputs
        x = self.last_feat_conv(last)
        for index in range(len(finer) - 1, -1, -1):
            lateral = self.lateral_convs[index](finer[index])
            x = self.output_convs[index](lateral + resize(x, like=lateral, mode="nearest"))
        return self.mask_feature(x), last
