"""Fully convolutional heads: plain, of separable convolutions, and STDC's detail guidance."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.layers import DepthwiseSeparableConvBlock, Spec
from terrazzo.registry import MODELS


@MODELS.register
class FCNHead(DecodeHead):
    """A few convolutions (Long et al., CVPR 2015), with `concat_input` fused with their input; most auxiliary heads."""

    def __init__(
        self, *, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True, dilation: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        widths = [self.in_channels, *[self.channels] * (num_convs - 1)][:num_convs]
        padding = kernel_size // 2
        self.convs = nn.Sequential(
            *[
                self.layer(width, kernel_size=kernel_size, padding=padding * dilation, dilation=dilation)
                for width in widths
            ]
        )
        self.concat_input = concat_input
        if concat_input:
            self.conv_cat = self.layer(self.in_channels + self.channels, kernel_size=kernel_size, padding=padding)

    def layer(self, in_channels: int, **options: Any) -> nn.Module:
        """One of the head's convolutions."""
        return self.conv_block(in_channels, self.channels, **options)

    def convolve(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H, W)."""
        return self.convs(x)

    def features(self, inputs: Features) -> Tensor:
        x = self.select(inputs)
        features = self.convolve(x)
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return features


@MODELS.register
class DepthwiseSeparableFCNHead(FCNHead):
    """Fast-SCNN head (Poudel et al., BMVC 2019): an FCNHead whose convolutions are depthwise separable."""

    def __init__(self, *, dw_act_cfg: Spec | None = None, **kwargs: Any) -> None:
        self.dw_act_cfg = dw_act_cfg  # before the parent, whose convolutions need it
        super().__init__(**kwargs)

    def layer(self, in_channels: int, **options: Any) -> nn.Module:
        """A separable convolution, with `dw_act_cfg` between its two parts."""
        options |= {"norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg, "dw_act_cfg": self.dw_act_cfg}
        return DepthwiseSeparableConvBlock(in_channels, self.channels, **options)


@MODELS.register
class STDCHead(FCNHead):
    """Detail guidance (Fan et al., CVPR 2021): learn where the label map changes, at several scales together.

    An auxiliary head of two classes, detail or not; its labels come from the class map by a Laplacian.
    """

    strides = (1, 2, 4)
    laplacian_kernel: Tensor

    def __init__(self, *, boundary_threshold: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.boundary_threshold = boundary_threshold
        laplacian = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])
        self.register_buffer("laplacian_kernel", laplacian.view(1, 1, 3, 3))
        weights = torch.tensor([0.6, 0.3, 0.1])  # of the scales
        self.fusion_kernel = nn.Parameter(weights.view(1, 3, 1, 1), requires_grad=False)

    def detail(self, labels: Tensor) -> Tensor:
        """Labels (N, H, W) -> 1 where they change, 0 elsewhere."""
        classes = labels.unsqueeze(1).to(self.laplacian_kernel.dtype)
        changes = [F.conv2d(classes, self.laplacian_kernel, stride=stride, padding=1) for stride in self.strides]
        scales = [F.interpolate(change, labels.shape[-2:], mode="nearest") for change in changes]
        found = (torch.cat(scales, dim=1) > self.boundary_threshold).to(classes.dtype)  # N, 3, H, W
        return (F.conv2d(found, self.fusion_kernel) > self.boundary_threshold).squeeze(1).long()

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        return self.losses(self(inputs), self.detail(labels))
