"""Detail guidance (Fan et al., CVPR 2021): learn where the label map changes, at several scales together."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terrazzo.models.heads.base import Features
from terrazzo.models.heads.fcn import FCNHead
from terrazzo.registry import MODELS


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
