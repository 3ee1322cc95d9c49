"""VPD's depth head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import Features
from terrazzo.models.layers import resize
from terrazzo.models.layers.init import init_truncated
from terrazzo.models.losses.base import SegmentationLoss
from terrazzo.models.losses.silog import SiLogLoss
from terrazzo.registry import MODELS


@MODELS.register
class VPDDepthHead(nn.Module):
    """Depth from four maps (VPD, Zhao et al., ICCV 2023): gathered at the third one's size, then doubled step by step.

    The answer (N, 1, H, W) is a depth between 0 and `max_depth`, in its unit. `fmap_border` cuts rows below and columns
    on the right off the gathered map, where a backbone has padded the image.
    """

    num_classes = out_channels = 1
    threshold = None
    ignore_index = 255

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (320, 640, 1280, 1280),
        max_depth: float = 10.0,
        embed_dim: int = 192,
        feature_dim: int = 1536,
        num_deconv_layers: int = 3,
        num_deconv_filters: Sequence[int] = (32, 32, 32),
        fmap_border: int | Sequence[int] = 0,
        align_corners: bool = False,
        loss_decode: SegmentationLoss | None = None,
    ) -> None:
        super().__init__()

        # settings
        if len(num_deconv_filters) != num_deconv_layers:
            raise UserError(f"VPDDepthHead: give num_deconv_filters {num_deconv_layers} values, one a layer")
        first, second, third, last = in_channels
        self.max_depth = max_depth
        self.border = (fmap_border, fmap_border) if isinstance(fmap_border, int) else tuple(fmap_border)
        self.align_corners = align_corners
        self.loss_decode = SiLogLoss() if loss_decode is None else loss_decode

        # gathering at the size of the third map
        self.first = nn.Sequential(
            nn.Conv2d(first, first, 3, stride=2, padding=1),
            nn.GroupNorm(16, first),
            nn.ReLU(),
            nn.Conv2d(first, first, 3, stride=2, padding=1),
        )
        self.second = nn.Conv2d(second, second, 3, stride=2, padding=1)
        self.gather = nn.Sequential(
            nn.Conv2d(first + second + third + last, feature_dim, 1), nn.GroupNorm(16, feature_dim), nn.ReLU()
        )

        # doublings of the size, and the depth
        widths = [feature_dim, *num_deconv_filters]
        self.deconvolutions = nn.Sequential(
            *[
                nn.Sequential(
                    nn.ConvTranspose2d(width, after, 2, stride=2, bias=False), nn.BatchNorm2d(after), nn.ReLU()
                )
                for width, after in pairwise(widths)
            ]
        )
        self.refine = nn.Sequential(
            nn.Conv2d(widths[-1], embed_dim, 3, padding=1, bias=False), nn.BatchNorm2d(embed_dim), nn.ReLU()
        )
        self.depth = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1), nn.ReLU(), nn.Conv2d(embed_dim, 1, 3, padding=1)
        )

        # weights
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                init_truncated(layer)

    def gathered(self, inputs: Features) -> Tensor:
        """The four maps as one (N, feature_dim, h, w), at the third one's size."""
        first, second, third, last = inputs
        maps = [
            resize(x, like=third, align_corners=self.align_corners)
            for x in (self.first(first), self.second(second), third, last)
        ]
        x = self.gather(torch.cat(maps, dim=1))
        return x[..., : x.shape[2] - self.border[0], : x.shape[3] - self.border[1]]

    def forward(self, inputs: Features) -> Tensor:
        x = self.refine(self.deconvolutions(self.gathered(inputs)))
        x = resize(x, scale_factor=4, align_corners=self.align_corners)
        return self.depth(x).sigmoid() * self.max_depth

    def predict(self, inputs: Features, size: Sequence[int]) -> Tensor:
        """Depth (N, 1, h, w) for an image of `size`, at the head's own resolution."""
        return self(inputs)

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """The loss on the target `depth` (N, H, W), zero where nothing was measured; labels are not read."""
        depth = targets["depth"]
        predicted = resize(self(inputs), depth.shape[-2:], align_corners=self.align_corners)
        return {self.loss_decode.loss_name: self.loss_decode(predicted, depth)}
