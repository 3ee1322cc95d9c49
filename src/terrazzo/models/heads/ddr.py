"""DDRNet head (Hong et al., 2021): classify the fused map, and in training the detail branch half-way too."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.heads.base import DecodeHead, Features
from terrazzo.models.heads.two_branch import refine
from terrazzo.models.layers import Spec, resize
from terrazzo.models.losses.base import accuracy
from terrazzo.registry import MODELS


@MODELS.register
class DDRHead(DecodeHead):
    """DDRNet head (Hong et al., 2021): classify the fused map, and in training the detail branch half-way too.

    `loss_decode` is two losses, for the fused map and for the detail branch. Raises UserError otherwise.
    """

    def __init__(
        self,
        *,
        norm_cfg: Spec = {"type": "BN"},  # noqa: B006 - never written to
        act_cfg: Spec = {"type": "ReLU", "inplace": True},  # noqa: B006 - never written to
        **kwargs: Any,
    ) -> None:
        super().__init__(norm_cfg=norm_cfg, act_cfg=act_cfg, **kwargs)
        if len(self.criteria) != 2:
            raise UserError("DDRHead: loss_decode needs a list of two losses: fused map, detail branch")
        style: Spec = {"norm_cfg": norm_cfg, "act_cfg": act_cfg, "conv_cfg": self.conv_cfg}
        self.head = nn.Sequential(*refine(self.in_channels, self.channels, **style))
        self.aux_head = nn.Sequential(*refine(self.in_channels // 2, self.channels, **style))
        self.aux_cls_seg = nn.Conv2d(self.channels, self.out_channels, 1)

    def features(self, inputs: Features) -> Tensor:
        return self.head(inputs[-1])

    def loss(self, inputs: Features, labels: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        detail, _ = inputs
        size = labels.shape[-2:]
        context = resize(self(inputs), size, align_corners=self.align_corners)
        spatial = resize(self.aux_cls_seg(self.aux_head(detail)), size, align_corners=self.align_corners)
        context_loss, spatial_loss = self.criteria
        return {
            "loss_context": context_loss(context, labels, ignore_index=self.ignore_index),
            "loss_spatial": spatial_loss(spatial, labels, ignore_index=self.ignore_index),
            "acc_seg": accuracy(context, labels, self.ignore_index),
        }
